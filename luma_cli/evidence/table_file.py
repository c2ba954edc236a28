"""A file of results as its records: CSV of any usual kind (comma, semicolon, tab; with or without BOM), or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luma_cli.errors import UsageError

# The shipped 985 rows take 0.4 MB.
MOST_BYTES = 50_000_000
_DELIMITERS = (",", ";", "\t", "|")
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_CHARACTERS_OF_A_CELL = 2000


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file: its number after the heading, the line that it ends on, its cells by column.

    fault: why it cannot be read, empty when it can.
    """

    row: int
    line: int
    cells: Mapping[str, str]
    fault: str = ""

    @property
    def where(self) -> str:
        """e.g. `row 3 (line 4)`."""
        return f"row {self.row} (line {self.line})"


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file that was read. decimal_comma: whether `48,1` is a number, as where cells are separated by semicolons."""

    path: Path
    columns: tuple[str, ...]
    records: tuple[Record, ...]
    decimal_comma: bool = False


def read_table(path: Path, known: Collection[str]) -> TableFile:
    """Every record of the file. `known` are columns that a heading may have; the separator is what finds most of them.

    Raises UsageError for a file that is none, is empty, too large, not text, or whose heading has no known column.
    """
    text = _text(path)
    if text.lstrip()[:1] in ("{", "["):
        return _json_table(path, text)
    delimiter = max(_DELIMITERS, key=lambda each: len(set(_heading(text, each)) & set(known)))
    columns = _heading(text, delimiter)
    if not set(columns) & set(known):
        raise UsageError(
            f"{path}: the heading {' '.join(text.split())[:60]!r} has no column that luma knows; expected names such "
            "as dataset, backbone, miou separated by commas, semicolons or tabs"
        )
    if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
        raise UsageError(f"{path}: column {twice[0]!r} is there twice; leave one out")
    return TableFile(path, columns, tuple(_records(text, delimiter, columns)), decimal_comma=delimiter == ";")


def _text(path: Path) -> str:
    if path.is_dir():
        raise UsageError(f"{path} is a folder, expected a CSV or JSON file of results")
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UsageError(
                f"{path} has {size / 1e6:,.0f} MB, expected at most {MOST_BYTES / 1e6:.0f} MB; split the file"
            )
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}; name a CSV or JSON file") from error
    if not data.strip():
        raise UsageError(f"{path} is empty, expected a heading and a row for each result")
    encoding = next((name for bom, name in _BOMS if data.startswith(bom)), "utf-8")
    if encoding != "utf-16" and b"\0" in data:
        raise UsageError(f"{path} is a binary file, expected CSV or JSON text")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not {encoding} text (byte {error.start}): save it as `CSV UTF-8` and import that"
        ) from error


def column(name: str) -> str:
    """A heading in our spelling: `mIoU` is `miou`, `Pretraining data` is `pretraining_data`."""
    return "_".join(name.lower().split())


def _heading(text: str, delimiter: str) -> tuple[str, ...]:
    try:
        return tuple(column(name) for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []))
    except csv.Error:
        return ()


def _records(text: str, delimiter: str, columns: tuple[str, ...]) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    next(reader)
    row = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row += 1
            yield Record(row, reader.line_num, {}, f"is not valid CSV: {error}")
            continue
        if any(cell.strip() for cell in cells):
            row += 1
            yield _record(row, reader.line_num, cells, columns)


def _record(row: int, line: int, cells: list[str], columns: tuple[str, ...]) -> Record:
    while len(cells) > len(columns) and not cells[-1].strip():  # spreadsheets add empty cells
        cells = cells[:-1]
    if len(cells) != len(columns):
        return Record(row, line, {}, f"has {len(cells)} cells, the heading {len(columns)}")
    return _checked(row, line, dict(zip(columns, cells, strict=True)))


def _checked(row: int, line: int, cells: Mapping[str, str]) -> Record:
    """The record with blanks and line breaks as one blank; what a terminal would obey is left out."""
    plain = {name: "".join(filter(str.isprintable, " ".join(cell.split()))) for name, cell in cells.items()}
    long = [name for name, cell in plain.items() if len(cell) > _CHARACTERS_OF_A_CELL]
    if long:
        said = f"{long[0]} has {len(plain[long[0]]):,} characters, expected at most {_CHARACTERS_OF_A_CELL:,}"
        return Record(row, line, {}, said)
    return Record(row, line, plain)


def _json_table(path: Path, text: str) -> TableFile:
    """JSON lines, a list of objects, or what `luma evidence list --json` prints."""
    try:
        whole = json.loads(text)
        rows = whole.get("evidence", [whole]) if isinstance(whole, dict) else whole
        rows = rows if isinstance(rows, list) else [rows]
        found = [_json_record(number, number, value) for number, value in enumerate(rows, start=1)]
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply, expected a list of objects with the columns as keys") from error
    except json.JSONDecodeError:
        lines = [(line, content) for line, content in enumerate(text.splitlines(), start=1) if content.strip()]
        found = [_json_line(row, line, content) for row, (line, content) in enumerate(lines, start=1)]
    columns = tuple(dict.fromkeys(name for record in found for name in record.cells))
    return TableFile(path, columns, tuple(found))


def _json_line(row: int, line: int, content: str) -> Record:
    try:
        return _json_record(row, line, json.loads(content))
    except (json.JSONDecodeError, RecursionError) as error:
        return Record(row, line, {}, f"is not valid JSON: {error}")


def _json_record(row: int, line: int, value: Any) -> Record:
    if not isinstance(value, dict):
        return Record(row, line, {}, f"is {type(value).__name__} in JSON, expected an object with the columns as keys")
    nested = [name for name, cell in value.items() if isinstance(cell, dict | list | bool)]
    if nested:
        return Record(row, line, {}, f"{nested[0]} is {json.dumps(value[nested[0]])[:40]}, expected text or a number")
    return _checked(row, line, {column(name): "" if cell is None else str(cell) for name, cell in value.items()})
