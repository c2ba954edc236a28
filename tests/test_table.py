"""Tables are drawn on a terminal, tab-separated in a pipe, and never interpret text from outside."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from luma_cli.report.table import Table, columns, draw, merge_cells, number, print_table

TABLE = Table(
    columns("backbone", "GFLOPs>"),
    (("vit_b", "107.0"), ("[red]x[/red]", "1,234.5")),
    title="Costs",
    caption="GFLOPs: 1 multiply-add = 1 FLOP",
)


def test_pipe_gets_tab_separated_lines() -> None:
    file = StringIO()
    print_table(TABLE, file)
    assert file.getvalue().splitlines() == [
        "# Costs",
        "# GFLOPs: 1 multiply-add = 1 FLOP",
        "backbone\tGFLOPs",
        "vit_b\t107.0",
        "[red]x[/red]\t1,234.5",
    ]


def test_drawn_table_shows_markup_as_text() -> None:
    file = StringIO()
    draw(TABLE, Console(file=file, width=60))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert lines[0] == "Costs"
    assert any(line.startswith(" [red]x[/red]") or line.startswith("[red]x[/red]") for line in lines)
    assert all(len(line) <= 60 for line in lines)


def test_unmeasured_numbers_are_dashes() -> None:
    assert number(None) == "-"
    assert number(1234.567, 2) == "1,234.57"


def test_repeated_cells_are_left_blank() -> None:
    rows = [("a", "1"), ("a", "2"), ("b", "3")]
    assert merge_cells(rows, 1) == (("a", "1"), ("", "2"), ("b", "3"))
