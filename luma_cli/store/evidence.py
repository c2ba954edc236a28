"""Imported results in the database: added, read and taken out, never changed. A row is a mapping of column to value."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luma_cli.errors import StoreError
from luma_cli.store import rows
from luma_cli.store.database import file_of, transaction, translated
from luma_cli.store.profiles import dicts
from luma_cli.store.rows import Row

if TYPE_CHECKING:
    from sqlite_utils import Database


PREFIX = "imp-"
_REALS = ("miou_percent", "params_m", "gflops_published")
_WHOLES = ("height", "width", "seeds")
# What a row says, and its hash covers, in the order of the table.
COLUMNS = (
    *("provenance", "trust", "dataset", "split", "head", "regime", "eval", "backbone", "miou_percent", "height"),
    *("width", "recipe", "schedule", "pretraining", "pretraining_raw", "pretraining_data", "extra_data", "family"),
    *("timm", "architecture", "in_timm", "params_m", "params_scope", "gflops_published", "flops_unit", "head_raw"),
    *("seeds", "source", "url", "doubtful", "remarks", "notes"),
)
# The first file that brought a row, whatever the order of merging.
_EARLIEST = """
UPDATE main.evidence_row SET imported_unix_seconds = o.imported_unix_seconds, file = o.file
FROM other.evidence_row AS o WHERE o.hash = main.evidence_row.hash
    AND (o.imported_unix_seconds, o.file) < (main.evidence_row.imported_unix_seconds, main.evidence_row.file)
"""


def content_hash(row: Mapping[str, Any]) -> str:
    """Hex SHA-256 of what `row` says in COLUMNS."""
    return rows.sha256(rows.canonical([row[name] for name in COLUMNS], "the imported row"))


def id_of(content: str) -> str:
    """Name of a row by its hash, e.g. `imp-1a2b3c4d`."""
    return PREFIX + content[:8]


def encode(row: Mapping[str, Any]) -> Row:
    """`row` as SQLite gives it back, with its hash. Raises StoreError for a number that is not finite."""
    values: Row = {name: rows.text(row[name]) for name in COLUMNS if name not in (*_REALS, *_WHOLES)}
    values |= {name: _real(name, row[name]) for name in _REALS} | {name: row[name] for name in _WHOLES}
    return {**values, "hash": content_hash(values)}


def _real(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if not math.isfinite(value):
        raise StoreError(f"imported row: {name} is {value}, expected a finite number or none; nothing was kept")
    return float(value) + 0.0


def save_evidence(
    db: Database, given: Sequence[Mapping[str, Any]], file: str, now: Callable[[], float] = time.time
) -> list[str]:
    """Adds what the database lacks of `given`, all in one transaction; returns the hashes of what was added."""
    names = (*COLUMNS, "hash", "file", "imported_unix_seconds")
    statement = f"INSERT INTO evidence_row ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    encoded = {row["hash"]: row for row in map(encode, given)}
    extra = {"file": rows.text(file), "imported_unix_seconds": now() + 0.0}
    with translated(file_of(db.conn)), transaction(db.conn):
        known = {content for (content,) in db.conn.execute("SELECT hash FROM evidence_row")}
        added = [row | extra for content, row in encoded.items() if content not in known]
        db.conn.executemany(statement, [[row[name] for name in names] for row in added])
    return [row["hash"] for row in added]


def evidence_rows(connection: sqlite3.Connection | None) -> list[Row]:
    """Every imported row with its hash, in the order of the hashes. Empty without a database."""
    if connection is None:
        return []
    with translated(file_of(connection)):
        return list(dicts(connection.execute(f"SELECT {', '.join(COLUMNS)}, hash FROM evidence_row ORDER BY hash")))


def remove_evidence(db: Database, hashes: Collection[str]) -> int:
    """Takes rows out, all in one transaction; returns how many there were."""
    with translated(file_of(db.conn)), transaction(db.conn):
        statement = "DELETE FROM evidence_row WHERE hash IN (SELECT value FROM json_each(?))"
        return int(db.conn.execute(statement, [json.dumps(sorted(hashes))]).rowcount)


def merge_evidence(connection: sqlite3.Connection) -> int:
    """Adds the imported rows that only the attached database `other` has; returns how many. Inside a transaction."""
    names = ", ".join((*COLUMNS, "hash", "file", "imported_unix_seconds"))
    added = connection.execute(
        f"INSERT INTO main.evidence_row ({names}) SELECT {names} FROM other.evidence_row "
        "WHERE hash NOT IN (SELECT hash FROM main.evidence_row) ORDER BY hash"
    ).rowcount
    connection.execute(_EARLIEST)
    return int(added)


def evidence_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Imported rows that are not what their hash says, one line each."""
    query = f"SELECT evidence_row_id, hash, {', '.join(COLUMNS)} FROM evidence_row ORDER BY 1"
    for row in list(dicts(connection.execute(query))):
        if content_hash(row) != row["hash"]:
            yield f"evidence_row {row['evidence_row_id']} is not what its hash says"
