"""Tables, drawn on a terminal and tab-separated in a pipe; also JSON, CSV, wrapped notes and sparklines."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Literal, TextIO

from luma_cli.to_json import to_json

if TYPE_CHECKING:
    from rich.console import Console

# Text in a drawn cell may be broken down to this width; a table that needs less is written as paragraphs.
NARROWEST = 16


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `fold` lets long text wrap at any word rather than keep NARROWEST characters together.

    spare: left out of a drawing that is too narrow for whole cells, the highest first; 0 is never left out.
    """

    heading: str
    align: Literal["left", "right"] = "left"
    fold: bool = False
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under columns, with a title above and a caption (units, assumptions) below."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    caption: str = ""
    merge: int = 0  # that many first cells are left out of a drawn row when they repeat the row above


def number(value: float | None, digits: int = 1) -> str:
    """`value` with `digits` decimals and thousands separated, or a dash for None.

    Below 1 it has as many significant digits, at least two, so that a small value does not read as zero.
    """
    if value is None:
        return "-"
    return f"{value:.{max(2, digits)}g}" if 0 < abs(value) < 1 else f"{value:,.{digits}f}"


def four_digits(value: float) -> str:
    """`value` with four significant digits and thousands separated, without an exponent.

    >>> four_digits(12_244.7), four_digits(0.22961)
    ('12,240', '0.2296')
    """
    return f"{float(f'{value:.4g}'):,.12g}"


def columns(*headings: str, spare: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns from headings; a heading that ends in `>` is right-aligned, one that ends in `~` folds.

    spare: headings without their marks that a narrow drawing can do without, the first to be left out first.
    """
    places = {heading: len(spare) - at for at, heading in enumerate(spare)}
    names = [each.rstrip(">~") for each in headings]
    return tuple(
        Column(name, "right" if each.endswith(">") else "left", each.endswith("~"), places.get(name, 0))
        for name, each in zip(names, headings, strict=True)
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
    """Draw on a rich console: a grid in which no number is broken, or paragraphs where no such grid fits.

    Columns that can be spared are left out before a name is broken.
    """
    whole = sum(_column_widths(table, _longest_word, lambda column, cell: _longest_word(cell))) + len(table.columns) + 1
    if whole > console.width and any(column.spare for column in table.columns):
        draw(_spared(table), console)
        return
    least, most = _column_widths(table, _longest_word, _unbroken), _column_widths(table, str, lambda _, cell: cell)
    gap = 1 if sum(most) + 2 * len(most) <= console.width else 0
    spare = console.width - sum(least) - (1 + gap) * len(least) - (1 - gap)
    if spare < 0:
        _draw_paragraphs(table, console)
        return
    # Names take the spare width first, then text that folds, then headings of numbers.
    order = sorted(range(len(least)), key=lambda at: (table.columns[at].align == "right", table.columns[at].fold))
    widths = list(least)
    for at in order:
        widths[at] += min(spare, most[at] - least[at])
        spare -= widths[at] - least[at]
    _draw_grid(table, console, widths, gap)


def _spared(table: Table) -> Table:
    """Without the column that can be spared most easily."""
    out = max(range(len(table.columns)), key=lambda at: table.columns[at].spare)
    rows = tuple((*row[:out], *row[out + 1 :]) for row in table.rows)
    return replace(table, columns=(*table.columns[:out], *table.columns[out + 1 :]), rows=rows)


def drawn_height(table: Table) -> int:
    """Lines that the table takes on this terminal."""
    from rich.console import Console

    text = io.StringIO()
    draw(table, Console(file=text, width=get_terminal_size().columns))
    return text.getvalue().count("\n")


def _draw_grid(table: Table, console: Console, widths: Sequence[int], gap: int) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    # All text is escaped: it may come from outside.
    drawn = RichTable(
        title=escape(table.title) or None,
        caption=escape(table.caption) or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, gap, 0, 0),
    )
    for column, width in zip(table.columns, widths, strict=True):
        drawn.add_column(escape(column.heading), justify=column.align, overflow="fold", width=width)
    for row in merge_cells(table.rows, table.merge):
        drawn.add_row(*(escape(cell) for cell in row))
    console.print(drawn)


def _column_widths(table: Table, heading: Callable[[str], str], cell: Callable[[Column, str], str]) -> list[int]:
    """The width of each column that keeps together what `heading` and `cell` return of its texts."""
    rows = zip(*table.rows, strict=True) if table.rows else [()] * len(table.columns)
    return [
        max(len(heading(column.heading)), *(len(cell(column, text)) for text in texts), 0)
        for column, texts in zip(table.columns, rows, strict=True)
    ]


def _longest_word(text: str) -> str:
    return max(text.split(), key=len, default="")


def _unbroken(column: Column, cell: str) -> str:
    """What must stay in one line: a number, a word of text that folds, else NARROWEST characters."""
    if column.align == "right":
        return cell
    return _longest_word(cell)[:NARROWEST] if column.fold else cell[:NARROWEST]


def _draw_paragraphs(table: Table, console: Console) -> None:
    """For each row its first text, and below it `heading value` of the other cells."""
    width = max(20, console.width)

    def say(text: str, indent: str = "") -> None:
        for line in textwrap.wrap(text, width - 1, initial_indent=indent, subsequent_indent=indent):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    name = next((index for index, column in enumerate(table.columns) if column.align == "left"), 0)
    say(table.title)
    for row in table.rows:
        say(row[name])
        rest = [(column.heading, cell) for column, cell in zip(table.columns, row, strict=True) if cell]
        say(", ".join(f"{heading} {cell}".strip() for heading, cell in rest[:name] + rest[name + 1 :]), "  ")
    for line in table.caption.splitlines():
        say(line)


def merge_cells(rows: Sequence[tuple[str, ...]], blank: int) -> tuple[tuple[str, ...], ...]:
    """`rows` with the first `blank` cells left empty where they repeat the row above."""
    result = list(rows[:1])
    for above, row in zip(rows, rows[1:], strict=False):
        same = row[:blank] == above[:blank]
        result.append(("",) * blank + row[blank:] if same else row)
    return tuple(result)


def print_json(value: Any, file: TextIO | None = None) -> None:
    """Print a result as JSON to `file` (default stdout), as `to_json` writes it."""
    print(json_text(value), file=file)


def json_text(value: Any) -> str:
    """A result as JSON, as `to_json` writes it or the result's own method."""
    return json.dumps(value.to_json() if hasattr(value, "to_json") else to_json(value), indent=1, allow_nan=False)


def print_csv(headings: Sequence[str], rows: Iterable[Sequence[Any]], file: TextIO | None = None) -> None:
    """Print CSV to `file` (default stdout); None is an empty cell."""
    csv.writer(file or sys.stdout, lineterminator="\n").writerows([headings, *rows])


def print_rows(names: Sequence[str], rows: Iterable[Sequence[Any]], file: TextIO, as_json: bool = False) -> None:
    """Write `rows` as they come: tab-separated, or a JSON list with one object a line; blobs as their size."""
    plain = ([f"{len(value)} bytes" if isinstance(value, bytes) else value for value in row] for row in rows)
    if not as_json:
        print("\t".join(names), file=file)
        for row in plain:
            print("\t".join("" if value is None else " ".join(str(value).split()) for value in row), file=file)
        return
    separator = "["
    for row in plain:
        file.write(f"{separator}\n{json.dumps(to_json(dict(zip(names, row, strict=True))))}")
        separator = ","
    file.write("[]\n" if separator == "[" else "\n]\n")


def continued(command: str, mark: str = "") -> str:
    """A command behind `mark`, continued after a backslash where it is wider than the terminal: it can be copied."""
    width = max(20, get_terminal_size().columns - 1)
    indent = " " * (len(mark) + 4)
    lines = textwrap.wrap(
        command, width - 2, initial_indent=mark, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return mark + command if len(mark + command) <= width else " \\\n".join(lines)


def paragraphs(lines: Iterable[tuple[str, str]], file: TextIO, comment: str = "# ") -> None:
    """Print notes, a mark and a text each: wrapped and indented on a terminal, behind `comment` elsewhere.

    A command is continued with a backslash, so that it can be copied. An empty note is an empty line, but no empty
    comment.
    """
    for mark, text in lines:
        if not file.isatty():
            if text or not comment:
                print(f"{comment}{mark}{text}", file=file)
        elif text.startswith("luma "):
            print(continued(text, mark), file=file)
        else:
            print(wrapped(text, mark), file=file)


def wrapped(text: str, mark: str = "") -> str:
    """`text` behind `mark`, in lines that fit the terminal."""
    width = max(40, get_terminal_size((80, 24)).columns - 1)
    indent = " " * len(mark)
    return textwrap.fill(text, width, break_on_hyphens=False, initial_indent=mark, subsequent_indent=indent)


_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-~=+*#"


def sparkline(values: Sequence[float], width: int = 24, *, plain: bool = False) -> str:
    """Means of `values` over `width` equal stretches, from lowest to highest, in ASCII where `plain`; `!`: not finite.

    >>> sparkline([0.0, 1.0, 2.0, 3.0], plain=True)
    '_-+#'
    """
    marks = _PLAIN if plain else _BLOCKS
    count = min(width, len(values))
    parts = [values[len(values) * at // count : len(values) * (at + 1) // count] for at in range(count)]
    means = [math.fsum(part) / len(part) if all(map(math.isfinite, part)) else math.nan for part in parts]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = len(marks) / (high - low) if high > low else 0.0
    levels = [0 if math.isnan(mean) else min(len(marks) - 1, int((mean - low) * scale)) for mean in means]
    return "".join("!" if math.isnan(mean) else marks[level] for mean, level in zip(means, levels, strict=True))
