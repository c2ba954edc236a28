"""What importing a file of results would do: which rows come in, which are known, which are refused and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from luma_cli.catalogue.index import load_index
from luma_cli.catalogue.near import nearest
from luma_cli.errors import UsageError
from luma_cli.evidence import miou_scale
from luma_cli.evidence.cleaning import OTHER
from luma_cli.evidence.contradictions import Contradiction, contradictions
from luma_cli.evidence.evidence import COLUMNS, DATASET_TITLES, Evidence
from luma_cli.evidence.imported_row import KNOWN, NEEDED, Reading, cards, evidence_of
from luma_cli.evidence.miou_scale import MiouScale
from luma_cli.evidence.reference import RAW_COLUMNS
from luma_cli.evidence.table_file import TableFile, read_table
from luma_cli.store import database as files
from luma_cli.store.evidence_rows import content_hash, id_of, remove_evidence, save_evidence

_KEPT = {*COLUMNS, "miou", "resolution", "gflops"}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that was not taken in. row: after the heading; line: of the file."""

    row: int
    line: int
    reason: str


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
    rejected: tuple[Rejected, ...]
    notes: tuple[str, ...]
    contradictions: tuple[Contradiction, ...]

    @property
    def known(self) -> int:
        """Rows that were there already."""
        return len(self.rows) - len(self.new)


def read_file(path: Path) -> TableFile:
    """The file's records. Raises UsageError for one that is no table of results."""
    table = read_table(path, KNOWN)
    columns = set(table.columns)
    needed = {*NEEDED, "miou"}
    if missing := sorted(needed - columns - ({"miou"} if "miou_percent" in columns else set())):
        raise UsageError(
            f"{path}: no column {', '.join(missing)} in the heading {', '.join(table.columns)[:100]}; "
            "docs/evidence.md lists the columns"
        )
    return table


def examine(table: TableFile, known: Sequence[Evidence], scale: MiouScale | None = None) -> Imported:
    """What is in the file, beside the rows that are known. Nothing is written.

    Raises UsageError when figures may be percent or fractions and `scale` does not say.
    """
    if scale is None and (question := miou_scale.unclear(table)) is not None:
        raise UsageError(f"{table.path}: {question.text}; add --scale fraction or --scale percent")
    reading = Reading(table.path.name, load_index(), cards(), scale, table.decimal_comma)
    rows: dict[Evidence, Evidence] = {}
    rejected, merged = [], 0
    for record in table.records:
        try:
            row = evidence_of(record, reading)
        except ValueError as error:
            rejected.append(Rejected(record.row, record.line, str(error)))
            continue
        merged += row in rows
        rows.setdefault(row, _named(row))
    said = {statement(row) for row in known}
    new = tuple(row for row in rows.values() if statement(row) not in said)
    clashes = [each for each in contradictions([*rows.values(), *known]) if set(each.rows) & set(new)]
    return Imported(
        file=table.path,
        records=len(table.records),
        rows=tuple(rows.values()),
        new=new,
        merged=merged,
        rejected=tuple(rejected),
        notes=(*_left_out(table), *_noticed(new)),
        contradictions=tuple(clashes),
    )


def statement(row: Evidence) -> tuple[object, ...]:
    """What makes two rows the same published figure, whatever is noted beside it."""
    model = (row.backbone, row.pretraining_raw, row.pretraining_data, row.height, row.width, row.schedule)
    return (*model, row.dataset, row.split, row.eval, row.head_raw or row.head, row.source, row.miou_percent)


def _named(row: Evidence) -> Evidence:
    return replace(row, id=id_of(content_hash(_values(row))))


def _left_out(table: TableFile) -> list[str]:
    left = [name for name in table.columns if name and name not in _KEPT]
    foreign = [name for name in left if name not in RAW_COLUMNS]
    notes = [f"columns that luma does not know, left out: {', '.join(foreign)}"] if foreign else []
    known = [name for name in left if name in RAW_COLUMNS]
    return notes + ([f"columns that the table of results does not keep: {', '.join(known)}"] if known else [])


def _noticed(rows: Sequence[Evidence]) -> Iterator[str]:
    """What the user should look at in rows that came in."""
    for dataset, count in Counter(row.dataset for row in rows if row.dataset not in DATASET_TITLES).items():
        near = [name for name in DATASET_TITLES if name.startswith(dataset)] or nearest(dataset, DATASET_TITLES, 1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        yield f"dataset {dataset!r}{meant} is none that luma has results for: kept under that name, {_rows(count)}"
    objectives = Counter(row.pretraining_raw for row in rows if row.pretraining == OTHER)
    if objectives:
        named = ", ".join(f"{name!r} ({count})" for name, count in objectives.most_common(5))
        more = f" and {len(objectives) - 5} more" if len(objectives) > 5 else ""
        yield f"pretraining that luma does not know, kept as printed and counted as other: {named}{more}"
    if count := sum(row.pretraining.startswith("supervised_") and _is_bare(row) for row in rows):
        taken = "taken as ImageNet-1k unless the name says 21k or 22k"
        yield f"pretraining supervised without its data, {taken}: {_rows(count)}"
    if count := sum(not row.head for row in rows):
        yield f"{_rows(count)} without a head: comparable with rows of the same source only"


def _is_bare(row: Evidence) -> bool:
    return row.pretraining_raw.lower() == "supervised" and not row.pretraining_data


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def keep(imported: Imported, database: Path | None = None) -> None:
    """Writes the new rows to the store, all of them or none. Raises StoreError."""
    if not imported.new:
        return
    with closing(files.open_write(database)) as db:
        save_evidence(db, [_values(row) for row in imported.new], imported.file.name)


def remove(rows: Sequence[Evidence], database: Path | None = None) -> int:
    """Takes imported rows out of the store, all of them or none; returns how many there were. Raises StoreError."""
    with closing(files.open_write(database)) as db:
        return remove_evidence(db, [content_hash(_values(row)) for row in rows])


def _values(row: Evidence) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS}
