"""Numbered SQL files in `db/`, each applied once, whole or not at all."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from luma_cli import files
from luma_cli.errors import StoreError

_NAME = re.compile(r"(\d{3})_[a-z0-9_]+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: `number` is what PRAGMA user_version becomes."""

    number: int
    file: Path

    def statements(self) -> Iterator[str]:
        """The SQL statements of the file, in order."""
        statement = ""
        for part in re.split("(?<=;)", self.file.read_text(encoding="utf-8")):
            statement += part
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""
        if statement.strip():
            raise StoreError(f"{self.file}: the last statement has no end, expected `;`")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """The only place where luma begins to write: all of the block is kept, or none of it.

    IMMEDIATE takes the write lock at once, where waiting for another writer is possible; a transaction that starts as a
    reader and then writes fails with `database is locked` however long the timeout.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def migrations(folder: Path | None = None) -> list[Migration]:
    """The steps in `folder` (default: the `db/` that ships) in order. Raises StoreError unless numbered 1, 2, 3, ..."""
    folder = folder or files.root() / "db"
    found = [
        Migration(int(match[1]), file) for file in sorted(folder.glob("*.sql")) if (match := _NAME.fullmatch(file.name))
    ]
    if [step.number for step in found] != list(range(1, len(found) + 1)) or not found:
        raise StoreError(f"{folder} holds migrations {[step.file.name for step in found]}, expected 001_, 002_, ...")
    return found


def schema(connection: sqlite3.Connection) -> int:
    """The number of the last step applied, 0 for a new file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def apply(connection: sqlite3.Connection, steps: list[Migration]) -> int:
    """Applies the steps that are pending, each in its own transaction; returns how many."""
    applied = 0
    for step in steps:
        if schema(connection) >= step.number:
            continue
        with transaction(connection):
            # Another process may have done it while this one waited for the lock.
            if schema(connection) >= step.number:
                continue
            for statement in step.statements():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {step.number}")
        applied += 1
    return applied
