"""A table as a value: drawn on a terminal, tab-separated in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, and how its cells stand. `fold` lets long text wrap rather than be cut."""

    heading: str
    align: Literal["left", "right"] = "left"
    fold: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under columns, with a title above and a caption (units, assumptions) below."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    caption: str = ""


def number(value: float | None, digits: int = 1) -> str:
    """`value` with `digits` decimals and thousands separated, or a dash when it was not measured."""
    return "-" if value is None else f"{value:,.{digits}f}"


def columns(*headings: str) -> tuple[Column, ...]:
    """Columns from headings; a heading that ends in `>` is right-aligned, one that ends in `~` folds."""
    styles = {">": Column("", "right"), "~": Column("", fold=True)}
    return tuple(
        Column(h[:-1], styles[h[-1]].align, styles[h[-1]].fold) if h[-1:] in styles else Column(h) for h in headings
    )


def print_table(table: Table, file: TextIO | None = None) -> None:
    """Print to `file` (default stdout): drawn when it is a terminal, else tab-separated with a heading line."""
    stream = file or sys.stdout
    if stream.isatty():
        from rich.console import Console

        draw(table, Console(file=stream))
    else:
        print_plain(table, stream)


def print_plain(table: Table, file: TextIO) -> None:
    """Tab-separated text: a heading line, one line a row; title and caption as # comments."""
    for line in (table.title, *table.caption.splitlines()):
        if line:
            print(f"# {line}", file=file)
    print("\t".join(column.heading for column in table.columns), file=file)
    for row in table.rows:
        print("\t".join(" ".join(cell.split()) for cell in row), file=file)


def draw(table: Table, console: Console) -> None:
    """Draw on a rich console. All text is escaped: it may come from outside."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    drawn = RichTable(
        title=escape(table.title) or None,
        caption=escape(table.caption) or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in table.columns:
        drawn.add_column(escape(column.heading), justify=column.align, overflow="fold", no_wrap=not column.fold)
    for row in table.rows:
        drawn.add_row(*(escape(cell) for cell in row))
    console.print(drawn)


def merge_cells(rows: Sequence[tuple[str, ...]], blank: int) -> tuple[tuple[str, ...], ...]:
    """`rows` with the first `blank` cells left empty where they repeat the row above."""
    result = list(rows[:1])
    for above, row in zip(rows, rows[1:], strict=False):
        same = row[:blank] == above[:blank]
        result.append(("",) * blank + row[blank:] if same else row)
    return tuple(result)
