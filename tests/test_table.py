"""Tables are drawn on a terminal, tab-separated in a pipe, and never interpret text from outside."""

from __future__ import annotations

from io import StringIO

import pytest
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


WIDE = Table(
    columns("backbone", "px>", "backbone GFLOPs>", "params M>", "batch>", "img/s>", "GiB>", "status~"),
    (
        ("vit_base_patch16_dinov3.lvd1689m", "512", "123.1", "94.7", "128", "425 ±70", "10.73", "ok noisy"),
        ("vit_base_patch16_dinov3.lvd1689m", "1024", "7,220.9", "94.7", "4", "12,345 ±12", "120.73", "oom"),
    ),
    title="A title that is not short at all, as titles of answers are",
    caption="A caption says what the units are, and what the numbers were measured under",
    merge=1,
)


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120])
def test_no_number_is_ever_cut(width: int) -> None:
    file = StringIO()
    draw(WIDE, Console(file=file, width=width))
    text = file.getvalue()
    words = text.replace(",\n", "\n").replace(", ", " ").split()
    for cell in (cell for row in WIDE.rows for cell in row[1:]):
        assert all(word in words for word in cell.split()), (cell, text)
    assert all(len(line) <= width for line in text.splitlines())


def test_rows_in_a_pipe_are_whole_where_a_drawing_merges_them() -> None:
    file = StringIO()
    print_table(WIDE, file)
    assert [line.split("\t")[0] for line in file.getvalue().splitlines()[3:]] == [WIDE.rows[0][0]] * 2


def test_small_numbers_do_not_read_as_zero() -> None:
    assert (number(0.0138), number(0.98), number(0.0), number(1.04), number(0.005271, 3)) == (
        "0.014",
        "0.98",
        "0.0",
        "1.0",
        "0.00527",
    )
