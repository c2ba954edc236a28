"""Importing a file of results: which rows come in, which are known, which are refused and why."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from luma_cli.catalogue.cards import candidates
from luma_cli.catalogue.pretraining import objective_named
from luma_cli.catalogue.reading import nearest
from luma_cli.catalogue.spec import BackboneSpec, Family
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import BadCard, UsageError
from luma_cli.evidence.cleaning import OTHER, supervised
from luma_cli.evidence.evidence import (
    COLUMNS,
    DATASET_TITLES,
    Contradiction,
    Evidence,
    Provenance,
    Regime,
    Trust,
    contradictions,
    of_row,
)
from luma_cli.evidence.reference import RAW_COLUMNS, cleaned_row
from luma_cli.store import database as files
from luma_cli.store.evidence import content_hash, id_of, remove_evidence, save_evidence

MiouScale = Literal["percent", "fraction"]
KNOWN = frozenset({*COLUMNS, *RAW_COLUMNS})
NEEDED = ("dataset", "backbone")
MOST_BYTES = 50_000_000  # the 985 shipped rows take 0.4 MB
_CHARACTERS_OF_A_CELL = 2000
_DELIMITERS = (",", ";", "\t", "|")
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_MIOU_COLUMNS = ("miou_percent", "miou")
_EVALS = {
    **dict.fromkeys(("", "not stated", "unknown"), ""),
    **dict.fromkeys(("single-scale", "single scale", "single", "ss"), "single-scale"),
    **dict.fromkeys(("ms+flip", "multi-scale", "multi scale", "multi", "ms", "tta"), "ms+flip"),
}
# Columns of ours with a fixed choice, and how a file may spell it.
_CHOICES: Mapping[str, Mapping[str, str]] = {
    "provenance": {
        **{each.lower(): each for each in get_args(Provenance)},
        **{"own": "own run", "luma": "published LUMA", "other": "other head"},
    },
    "trust": {each: each for each in get_args(Trust)},
    "regime": {each: each for each in get_args(Regime)},
}
_WHOLE = ("seeds", "height", "width")
_NUMBERS = ("params_m", "gflops", "gflops_published", *_WHOLE)


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file: its number after the heading, the line that it ends on, its cells by column.

    reason: why it cannot be taken in, empty when it can.
    """

    row: int
    line: int
    cells: Mapping[str, str]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file that was read. decimal_comma: whether `48,1` is a number, as where cells are separated by semicolons."""

    path: Path
    columns: tuple[str, ...]
    records: tuple[Record, ...]
    decimal_comma: bool = False


def read_file(path: Path) -> TableFile:
    """The file's records. Raises UsageError for one that is not a table of results."""
    table = read_table(path, KNOWN)
    needed = NEEDED if "miou_percent" in table.columns else (*NEEDED, "miou")
    if missing := sorted(set(needed) - set(table.columns)):
        raise UsageError(
            f"{path}: no column {', '.join(missing)} in the heading {', '.join(table.columns)[:100]}; "
            "docs/use/evidence.md lists the columns"
        )
    return table


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
    try:
        records = tuple(_records(text, delimiter, columns))
    except csv.Error as error:
        raise UsageError(f"{path}: the heading is not valid CSV: {error}; leave its quotes out") from error
    return TableFile(path, columns, records, decimal_comma=delimiter == ";")


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


def _spelled(name: str) -> str:
    """A heading in our spelling: `mIoU` is `miou`, `Pretraining data` is `pretraining_data`."""
    return "_".join(name.lower().split())


def _heading(text: str, delimiter: str) -> tuple[str, ...]:
    try:
        heading = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return tuple(map(_spelled, next(heading, [])))
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
        if not any(cell.strip() for cell in cells):
            continue
        row += 1
        while len(cells) > len(columns) and not cells[-1].strip():  # spreadsheets add empty cells
            cells.pop()
        if len(cells) == len(columns):
            yield _record(row, reader.line_num, dict(zip(columns, cells, strict=True)))
        else:
            yield Record(row, reader.line_num, {}, f"has {len(cells)} cells, the heading {len(columns)}")


def _record(row: int, line: int, cells: Mapping[str, str]) -> Record:
    """The record with blanks and line breaks as one blank; what a terminal would obey is left out."""
    plain = {name: "".join(filter(str.isprintable, " ".join(cell.split()))) for name, cell in cells.items()}
    for name, cell in plain.items():
        if len(cell) > _CHARACTERS_OF_A_CELL:
            said = f"{name} has {len(cell):,} characters, expected at most {_CHARACTERS_OF_A_CELL:,}"
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
    except ValueError:  # more than one value, or a number of thousands of digits
        lines = [(line, content) for line, content in enumerate(text.splitlines(), start=1) if content.strip()]
        found = [_json_line(row, line, content) for row, (line, content) in enumerate(lines, start=1)]
    columns = tuple(dict.fromkeys(name for record in found for name in record.cells))
    if found and not columns:
        raise UsageError(f"{path}, line {found[0].line}: {found[0].reason or 'is empty'}; expected a list of objects")
    return TableFile(path, columns, tuple(found))


def _json_line(row: int, line: int, content: str) -> Record:
    try:
        return _json_record(row, line, json.loads(content))
    except (ValueError, RecursionError) as error:
        return Record(row, line, {}, f"is not valid JSON: {error}")


def _json_record(row: int, line: int, value: Any) -> Record:
    if not isinstance(value, dict):
        return Record(row, line, {}, f"is {type(value).__name__} in JSON, expected an object with the columns as keys")
    nested = [name for name, cell in value.items() if isinstance(cell, dict | list | bool)]
    if nested:
        return Record(row, line, {}, f"{nested[0]} is {json.dumps(value[nested[0]])[:40]}, expected text or a number")
    return _record(row, line, {_spelled(name): "" if cell is None else str(cell) for name, cell in value.items()})


def figure(text: str, decimal_comma: bool = False) -> tuple[float, bool]:
    """The number of a cell and whether it has a percent sign. Raises ValueError that says what is wrong with it.

    >>> figure("48.1"), figure("48,1 %", decimal_comma=True)
    ((48.1, False), (48.1, True))
    """
    bare = text.removesuffix("%").strip()
    if not bare:
        raise ValueError("mIoU is empty")
    value = _number("mIoU", text, bare, decimal_comma)
    if not math.isfinite(value):
        raise ValueError(f"mIoU is {text!r}, expected a finite number")
    return value, text.endswith("%")


def _number(name: str, cell: str, bare: str, decimal_comma: bool) -> float:
    try:
        return float(bare.replace(",", ".") if decimal_comma else bare)
    except ValueError as error:
        raise ValueError(f"{name} is {cell[:40]!r}, expected a number") from error


def unclear(table: TableFile) -> str:
    """What has to be asked before the file can be read: figures of at most 1 may be fractions. Empty when none is."""
    figures = [(value, record) for record in table.records if (value := _bare(record, table.decimal_comma))]
    small = [(value, record) for value, record in figures if value <= 1]
    if not small:
        return ""
    value, first = small[0]
    how_many = f"{len(small)} of {len(figures)}" if len(small) < len(figures) else f"all {len(figures)}"
    return (
        f"{how_many} mIoU figures are at most 1, the first {value:g} in row {first.row} (line {first.line}): "
        f"a fraction is {100 * value:g} percent, a percentage stays {value:g} percent"
    )


def in_percent(text: str, scale: MiouScale | None, decimal_comma: bool) -> float:
    """MIoU in percent, figures of at most 1 without a percent sign read by `scale`. Raises ValueError."""
    value, signed = figure(text, decimal_comma)
    if scale == "fraction" and not signed and value <= 1:
        value = round(100 * value, 10)
    if not 0 < value < 100:
        raise ValueError(f"mIoU is {value:g} percent, expected between 0 and 100")
    return value


def _miou_cell(record: Record) -> str:
    return next((record.cells[name] for name in _MIOU_COLUMNS if record.cells.get(name)), "")


def _bare(record: Record, decimal_comma: bool) -> float | None:
    """The figure if it is above 0 and has no percent sign."""
    try:
        value, signed = figure(_miou_cell(record), decimal_comma)
    except ValueError:
        return None
    return None if signed or value <= 0 else value


def evidence_of(
    record: Record, table: TableFile, cards: Mapping[str, BackboneSpec], scale: MiouScale | None = None
) -> Evidence:
    """The row, without an id. Raises ValueError that says why it is not taken in.

    cards: by spelling of each candidate, e.g. `vit_b.dinov3`. scale: of figures of at most 1.
    """
    if record.reason:
        raise ValueError(record.reason)
    cells, comma = dict(record.cells), table.decimal_comma
    cells |= {name: _plain_number(name, cells[name], comma) for name in _NUMBERS if cells.get(name)}
    if missing := [name for name in NEEDED if not cells.get(name)]:
        raise ValueError(f"{missing[0]} is empty")
    miou = in_percent(_miou_cell(record), scale, comma)
    if (evaluated := cells.get("eval", "")).lower() not in _EVALS:
        raise ValueError(f"eval is {evaluated[:40]!r}, expected single-scale, ms+flip or nothing")
    cells |= {"dataset": cells["dataset"].lower(), "split": cells.get("split") or "val"}
    cells |= {"eval": _EVALS[evaluated.lower()], "source": cells.get("source") or f"imported from {table.path.name}"}
    return _ours(cells, miou) if set(COLUMNS) <= cells.keys() else _theirs(cells, miou, cards)


def _plain_number(name: str, cell: str, decimal_comma: bool) -> str:
    """The cell, a number in our spelling. Raises ValueError for a number column that is none."""
    value = _number(name, cell, cell, decimal_comma)
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is {cell!r}, expected a number above 0")
    if name in _WHOLE and value != int(value):
        raise ValueError(f"{name} is {cell!r}, expected a whole number")
    return str(int(value)) if name in _WHOLE else cell.replace(",", ".") if decimal_comma else cell


def _chosen(name: str, cell: str, allowed: Mapping[str, str]) -> str:
    if cell not in allowed:
        raise ValueError(f"{name} is {cell[:40]!r}, expected one of {', '.join(dict.fromkeys(allowed.values()))}")
    return allowed[cell]


def _ours(cells: Mapping[str, str], miou: float) -> Evidence:
    """A row with all of our columns, as `luma evidence export` writes it: taken as it is."""
    for name, allowed in _CHOICES.items():
        _chosen(name, cells[name], {each: each for each in allowed.values()})
    try:
        row = of_row("the row", {name: cells[name] for name in COLUMNS} | {"id": "", "miou_percent": repr(miou)})
    except BadCard as error:
        raise ValueError(str(error)) from error
    if objective_named(row.pretraining) is None and row.pretraining not in ("", OTHER):
        return replace(row, pretraining=OTHER, pretraining_raw=row.pretraining_raw or row.pretraining)
    return row


def _theirs(cells: Mapping[str, str], miou: float, cards: Mapping[str, BackboneSpec]) -> Evidence:
    """A row with some columns, cleaned as the published table is; what the file states itself in our columns counts."""
    raw = {name: cells.get(name, "") for name in RAW_COLUMNS}
    size = "x".join(filter(None, (cells.get("height"), cells.get("width"))))
    raw |= {"miou": repr(miou), "resolution": raw["resolution"].removesuffix(".0") or size}
    raw |= {"pretraining": raw["pretraining"] or cells.get("pretraining_raw", "")}
    raw |= {"gflops": raw["gflops"] or cells.get("gflops_published", "")}
    row = cleaned_row("", raw, load_index())
    stated: dict[str, Any] = {
        name: cells[name] for name in ("recipe", "extra_data", "remarks", "doubtful") if cells.get(name)
    }
    stated |= {
        name: _chosen(name, cells[name].lower(), allowed) for name, allowed in _CHOICES.items() if cells.get(name)
    }
    if cells.get("seeds"):
        stated["seeds"] = int(cells["seeds"])
    row = replace(row, pretraining=_objective(row), **stated)
    row = replace(row, **_of_card(row, cards))
    of_architecture = (spec.family for spec in cards.values() if spec.architecture == row.architecture)
    own = row.family.lower() if row.family.lower() in get_args(Family) else ""
    return replace(row, family=next(of_architecture, own))


def _objective(row: Evidence) -> str:
    """The row's objective; printed by our own name it is that one, and nothing stated is nothing known."""
    if row.pretraining != OTHER or not row.pretraining_raw:
        return "" if row.pretraining == OTHER else row.pretraining
    named = objective_named(row.pretraining_raw.lower())
    return named.name if named else supervised(row.pretraining_raw, row.pretraining_data, row.backbone)


def _of_card(row: Evidence, cards: Mapping[str, BackboneSpec]) -> dict[str, Any]:
    """What a spelling of the cards means: `vit_b.dinov3`, or `vit_b` with the objective dinov3."""
    spec = cards.get(row.backbone) or cards.get(f"{row.backbone}.{row.pretraining}")
    if row.in_timm != "no" or spec is None:
        return {}
    named = {"timm": spec.timm_name, "architecture": spec.architecture, "in_timm": "tag" if spec.tag else "arch"}
    return named if row.pretraining else {**named, "pretraining": spec.pretraining}


@dataclass(frozen=True, slots=True)
class Imported:
    """An import of `file`, done or only tried.

    rows: what it has, each once, contradictory ones too. new: those of them that were not known before. merged: exact
    duplicates within the file. notes: what was noticed, with the number of rows.
    """

    file: Path
    records: int
    rows: tuple[Evidence, ...]
    new: tuple[Evidence, ...]
    merged: int
    rejected: tuple[Record, ...]
    notes: tuple[str, ...]
    contradictions: tuple[Contradiction, ...]

    @property
    def known(self) -> int:
        """Rows that were there already."""
        return len(self.rows) - len(self.new)


def examine(table: TableFile, known: Sequence[Evidence], scale: MiouScale | None = None) -> Imported:
    """What is in the file, beside the rows that are known. Nothing is written.

    Raises UsageError when figures may be percent or fractions and `scale` does not say.
    """
    if scale is None and (question := unclear(table)):
        raise UsageError(f"{table.path}: {question}; add --scale fraction or --scale percent")
    cards = {spec.name: spec for spec in candidates()}
    rows: dict[Evidence, Evidence] = {}
    rejected, merged = [], 0
    for record in table.records:
        try:
            row = evidence_of(record, table, cards, scale)
        except ValueError as error:
            rejected.append(replace(record, reason=str(error)))
            continue
        merged += row in rows
        rows.setdefault(row, replace(row, id=id_of(content_hash(_values(row)))))
    said = {_statement(row) for row in known}
    new = tuple(row for row in rows.values() if _statement(row) not in said)
    return Imported(
        file=table.path,
        records=len(table.records),
        rows=tuple(rows.values()),
        new=new,
        merged=merged,
        rejected=tuple(rejected),
        notes=(*_left_out(table), *_noticed(new)),
        contradictions=tuple(each for each in contradictions([*rows.values(), *known]) if set(each.rows) & set(new)),
    )


def _statement(row: Evidence) -> tuple[object, ...]:
    """What makes two rows the same published figure, whatever is noted beside it."""
    model = (row.backbone, row.pretraining_raw, row.pretraining_data, row.height, row.width, row.schedule)
    return (*model, row.dataset, row.split, row.eval, row.head_raw or row.head, row.source, row.miou_percent)


def _left_out(table: TableFile) -> Iterator[str]:
    left = [name for name in table.columns if name and name not in {*COLUMNS, "miou", "resolution", "gflops"}]
    if foreign := [name for name in left if name not in RAW_COLUMNS]:
        yield f"columns that luma does not know, left out: {', '.join(foreign)}"
    if known := [name for name in left if name in RAW_COLUMNS]:
        yield f"columns that the table of results does not keep: {', '.join(known)}"


def _noticed(rows: Sequence[Evidence]) -> Iterator[str]:
    """What the user should look at in rows that came in."""
    for dataset, count in Counter(row.dataset for row in rows if row.dataset not in DATASET_TITLES).items():
        near = [name for name in DATASET_TITLES if name.startswith(dataset)] or nearest(dataset, DATASET_TITLES, 1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        yield f"dataset {dataset!r}{meant} is none that luma has results for: kept under that name, {_rows(count)}"
    if objectives := Counter(row.pretraining_raw for row in rows if row.pretraining == OTHER):
        named = ", ".join(f"{name!r} ({count})" for name, count in objectives.most_common(5))
        more = f" and {len(objectives) - 5} more" if len(objectives) > 5 else ""
        yield f"pretraining that luma does not know, kept as printed and counted as other: {named}{more}"
    guessed = [row for row in rows if row.pretraining.startswith("supervised_") and not row.pretraining_data]
    if count := sum(row.pretraining_raw.lower() == "supervised" for row in guessed):
        taken = "taken as ImageNet-1k unless the name says 21k or 22k"
        yield f"pretraining supervised without its data, {taken}: {_rows(count)}"
    if count := sum(not row.head for row in rows):
        yield f"{_rows(count)} without a head: comparable with rows of the same source only"


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def keep(imported: Imported, database: Path | None = None) -> None:
    """Writes the new rows to the store, all of them or none. Raises StoreError."""
    if imported.new:
        with closing(files.open_write(database)) as db:
            save_evidence(db, [_values(row) for row in imported.new], imported.file.name)


def remove(rows: Iterable[Evidence], database: Path | None = None) -> int:
    """Takes imported rows out of the store, all of them or none; returns how many there were. Raises StoreError."""
    with closing(files.open_write(database)) as db:
        return remove_evidence(db, [content_hash(_values(row)) for row in rows])


def _values(row: Evidence) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS}
