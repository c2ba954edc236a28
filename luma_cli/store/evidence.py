"""Imported results in the database: added, read and taken out, never changed. A row is a mapping of column to value."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luma_cli.store import rows
from luma_cli.store.database import fetch_dicts, file_of, transaction, translated
from luma_cli.store.rows import Row

if TYPE_CHECKING:
    from sqlite_utils import Database

_REALS = ("miou_percent", "params_m", "gflops_published")
_WHOLES = ("height", "width", "seeds")
# What a row says, and its hash covers, in the order of the table.
COLUMNS = (
    *("provenance", "trust", "dataset", "split", "head", "regime", "eval", "backbone", "miou_percent", "height"),
    *("width", "recipe", "schedule", "pretraining", "pretraining_raw", "pretraining_data", "extra_data", "family"),
    *("timm", "architecture", "in_timm", "params_m", "params_scope", "gflops_published", "flops_unit", "head_raw"),
    *("seeds", "source", "url", "doubtful", "remarks", "notes"),
)


def content_hash(row: Mapping[str, Any]) -> str:
    """Hex SHA-256 of what `row` says in COLUMNS."""
    return rows.sha256(rows.canonical([row[name] for name in COLUMNS], "the imported row"))


def id_of(content: str) -> str:
    """Name of a row by its hash, e.g. `imp-1a2b3c4d`."""
    return f"imp-{content[:8]}"


def save_evidence(
    db: Database, given: Sequence[Mapping[str, Any]], file: str, now: Callable[[], float] = time.time
) -> list[str]:
    """Adds what the database lacks of `given`, all in one transaction; returns the hashes of the added rows.

    Raises StoreError, with nothing kept, for a number that is not finite.
    """
    names = (*COLUMNS, "hash", "file", "imported_unix_seconds")
    statement = f"INSERT INTO evidence_row ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    extra = {"file": rows.text(file), "imported_unix_seconds": now() + 0.0}
    encoded: dict[str, Row] = {}
    for one in given:
        row: Row = {name: one[name] if name in _WHOLES else rows.text(one[name]) for name in COLUMNS}
        row |= {name: rows.finite_number(one[name], f"imported row: {name}") for name in _REALS}
        row |= {**extra, "hash": content_hash(row)}
        encoded[row["hash"]] = row
    with translated(file_of(db.conn)), transaction(db.conn):
        known = {content for (content,) in db.conn.execute("SELECT hash FROM evidence_row")}
        added = [row for content, row in encoded.items() if content not in known]
        db.conn.executemany(statement, [[row[name] for name in names] for row in added])  # faster than insert_all
    return [row["hash"] for row in added]


def evidence_rows(connection: sqlite3.Connection | None) -> list[Row]:
    """Every imported row with its hash, in the order of the hashes. Empty without a database."""
    return fetch_dicts(connection, f"SELECT {', '.join(COLUMNS)}, hash FROM evidence_row ORDER BY hash")


def remove_evidence(db: Database, hashes: Collection[str]) -> int:
    """Takes rows out, all in one transaction; returns how many there were."""
    with translated(file_of(db.conn)), transaction(db.conn):
        statement = "DELETE FROM evidence_row WHERE hash IN (SELECT value FROM json_each(?))"
        return int(db.conn.execute(statement, [json.dumps(sorted(hashes))]).rowcount)


def evidence_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Imported rows that are not what their hash says, one line each."""
    query = f"SELECT evidence_row_id, hash, {', '.join(COLUMNS)} FROM evidence_row ORDER BY 1"
    for row in fetch_dicts(connection, query):
        if content_hash(row) != row["hash"]:
            yield f"evidence_row {row['evidence_row_id']} is not what its hash says"
