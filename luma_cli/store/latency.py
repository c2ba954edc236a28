"""Imported latencies in the database: added and read, never changed. A row is a mapping of column to value."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luma_cli.store import rows
from luma_cli.store.database import fetch_dicts, file_of, transaction, translated
from luma_cli.store.rows import Row

if TYPE_CHECKING:
    from sqlite_utils import Database

COLUMNS = (
    *("model", "architecture", "head", "device", "runtime", "dtype", "height", "width", "batch", "ms", "macs"),
    *("remark", "source"),
)


def save_latencies(db: Database, given: Sequence[Mapping[str, Any]]) -> int:
    """Adds what the database lacks of `given`, in one transaction; returns how many that were. Raises StoreError."""
    names = (*COLUMNS, "hash")
    statement = f"INSERT OR IGNORE INTO latency_row ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
    hashed = [[*(row[name] for name in COLUMNS), content_hash(row)] for row in given]
    with translated(file_of(db.conn)), transaction(db.conn):
        before = db.conn.total_changes
        db.conn.executemany(statement, hashed)
        return int(db.conn.total_changes - before)


def content_hash(row: Mapping[str, Any]) -> str:
    """Hex SHA-256 of what `row` says in COLUMNS."""
    return rows.sha256(rows.canonical([row[name] for name in COLUMNS], "the imported latency"))


def latency_rows(connection: sqlite3.Connection | None) -> list[Row]:
    """Every imported row in the order of the hashes. Empty without a database, and in one of an older schema."""
    if connection is None:
        return []
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'latency_row'").fetchone():
        return []
    return fetch_dicts(connection, f"SELECT {', '.join(COLUMNS)} FROM latency_row ORDER BY hash")
