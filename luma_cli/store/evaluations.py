"""Evaluations in the database: what a checkpoint scored, with its classes and images. They never change."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from luma_cli.errors import StoreError
from luma_cli.store import rows
from luma_cli.store.database import file_of
from luma_cli.store.faults import translated
from luma_cli.store.migrations import transaction
from luma_cli.store.profiles import dicts, key_of
from luma_cli.store.rows import Row
from luma_cli.store.run_records import ClassScore, EvaluationRecord, ImageScore

if TYPE_CHECKING:
    from sqlite_utils import Database

_TEXTS = ("run_id", "checkpoint_sha256", "data", "split", "evaluated_at")
_WHOLES = ("step", "resolution", "num_images", "num_skipped", "num_windows", "num_classes", "num_present")
_REALS = (
    *("miou_percent", "macc_percent", "aacc_percent", "boundary_miou_percent"),
    *("windows_per_image", "macs_per_image", "seconds"),
)
_PARTS = (("evaluation_class", "class_index", ClassScore), ("evaluation_image", "image_index", ImageScore))


def save_evaluation(db: Database, record: EvaluationRecord, now: Callable[[], float] = time.time) -> int:
    """Keeps `record` in one transaction; returns its integer key. Saving the same content again changes nothing.

    Raises StoreError, with nothing kept, for a number that is not finite (None means "there is none").
    """
    row, classes, images = encode(record, now())
    with translated(file_of(db.conn)), transaction(db.conn):
        known = db.conn.execute("SELECT evaluation_id FROM evaluation WHERE hash = ?", [row["hash"]]).fetchone()
        if known is not None:
            return int(known[0])
        key = key_of(db, "evaluation", row)
        for (table, _, _), part in zip(_PARTS, (classes, images), strict=True):
            db.table(table).insert_all({"evaluation_id": key, **one} for one in part)
    return key


def encode(record: EvaluationRecord, now: float) -> tuple[Row, list[Row], list[Row]]:
    """The rows of `record`: its own with the hash over all of them, those of its classes and those of its images."""
    own = {
        **{name: rows.text(getattr(record, name)) for name in _TEXTS},
        **{name: getattr(record, name) for name in _WHOLES},
        **{name: _real(getattr(record, name), name) for name in _REALS},
        "protocol": rows.canonical(record.protocol, "the protocol of the evaluation"),
    }
    classes = [_part(one, "class_index", index) for index, one in enumerate(record.classes)]
    images = [_part(one, "image_index", index) for index, one in enumerate(record.images)]
    content = rows.sha256(rows.canonical([own, classes, images], "evaluation"))
    evaluated = rows.unix_seconds(record.evaluated_at, now)
    return {**own, "hash": content, "evaluated_unix_seconds": evaluated}, classes, images


def evaluations(
    connection: sqlite3.Connection | None,
    run_id: str | None = None,
    *,
    data: str | None = None,
    split: str | None = None,
    classes: bool = True,
    images: bool = False,
) -> list[EvaluationRecord]:
    """Evaluations, oldest first: of a run, of data (an identity as in RunRecord.dataset) and of a split, or of all.

    Those of one second come in the order of their steps. Without `classes` or `images` they carry none, which spares
    reading them.
    """
    if connection is None:
        return []
    given = {"run_id": run_id, "data": data, "split": split}
    where = " AND ".join(f"{name} = ?" for name, value in given.items() if value is not None) or "1"
    values = [rows.text(value) for value in given.values() if value is not None]
    query = f"SELECT * FROM evaluation WHERE {where} ORDER BY evaluated_unix_seconds, step, hash"
    with translated(file_of(connection)):
        return [decode(connection, row, classes, images) for row in list(dicts(connection.execute(query, values)))]


def decode(connection: sqlite3.Connection, row: Row, classes: bool = True, images: bool = True) -> EvaluationRecord:
    """The record of a row of `evaluation`."""
    names = [field.name for field in fields(EvaluationRecord) if field.name in row]
    parts = {
        "classes": _read(connection, row["evaluation_id"], *_PARTS[0]) if classes else (),
        "images": _read(connection, row["evaluation_id"], *_PARTS[1]) if images else (),
    }
    return EvaluationRecord(**{**{name: row[name] for name in names}, "protocol": json.loads(row["protocol"]), **parts})


def problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Evaluations that are not what their hash says, one line each."""
    for row in list(dicts(connection.execute("SELECT * FROM evaluation ORDER BY evaluation_id"))):
        record = decode(connection, row)
        again, _, _ = encode(record, row["evaluated_unix_seconds"])
        if wrong := [name for name, value in again.items() if row[name] != value]:
            yield f"evaluation {row['evaluation_id']}: {', '.join(wrong)} is not what was saved"


def _read(
    connection: sqlite3.Connection, key: int, table: str, index: str, kind: type[ClassScore] | type[ImageScore]
) -> tuple[Any, ...]:
    names = ", ".join(field.name for field in fields(kind))
    found = connection.execute(f"SELECT {names} FROM {table} WHERE evaluation_id = ? ORDER BY {index}", [key])
    return tuple(kind(*row) for row in found)


def _part(score: ClassScore | ImageScore, index_name: str, index: int) -> Row:
    values = asdict(score)
    reals = {name: _real(value, f"{values['name']}.{name}") for name, value in values.items() if "percent" in name}
    return {index_name: index, **values, **reals, "name": rows.text(values["name"])}


def _real(value: float | None, name: str) -> float | None:
    """`value` as SQLite gives it back. Raises StoreError for what is not finite."""
    if value is None:
        return None
    if not math.isfinite(value):
        raise StoreError(f"evaluation: {name} is {value}, expected a finite number or none; nothing was kept")
    return value + 0.0
