"""One SQL statement of the user's own, on a connection that cannot write anything anywhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luma_cli.errors import StoreError, UsageError
from luma_cli.store import database
from luma_cli.store.faults import code, translated

_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# With an argument these still only read; every other pragma with an argument sets something.
_PRAGMAS = {
    "table_info",
    "table_xinfo",
    "table_list",
    "index_list",
    "index_info",
    "foreign_key_list",
    "integrity_check",
}
_STEPS = 1_000_000  # of SQLite's virtual machine, some 10 ms, between two looks for Ctrl-C
EXAMPLE = 'luma db query "SELECT backbone, gmacs, latency_eager_p50_ms FROM profiles"'


@dataclass(frozen=True, slots=True)
class Answer:
    """Column names and the rows, which are read from the database as they are taken."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def query(sql: str, given: str | Path | None = None) -> Iterator[Answer]:
    """The answer to one SELECT, WITH, VALUES, EXPLAIN or reading PRAGMA; take the rows inside the `with` block.

    Raises UsageError for what does not parse, is several statements or would write, StoreError without a database.
    """
    file = database.path(given)
    connection = database.open_read(file)
    if connection is None:
        raise StoreError(f"{file} does not exist; `luma profile NAME` makes it, --db FILE or LUMA_DB names another")
    with closing(connection):
        connection.set_authorizer(_allow)
        connection.set_progress_handler(lambda: 0, _STEPS)
        try:
            with _interruptible():
                cursor = connection.execute(sql)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise UsageError(f"the statement cannot be answered: {error}; try {EXAMPLE}") from error
        if cursor.description is None:
            raise UsageError(f"the statement gives no rows; try {EXAMPLE}")
        yield Answer(tuple(column[0] for column in cursor.description), _fetched(cursor, file))


def _fetched(cursor: sqlite3.Cursor, file: Path) -> Iterator[tuple[Any, ...]]:
    """Rows of `cursor`. Only fetching is translated: what the caller does with a row fails in its own words."""
    while True:
        with translated(file), _interruptible():
            row = cursor.fetchone()
        if row is None:
            return
        yield row


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends a long statement: Python sees the signal in the progress handler, and SQLite reports an interrupt."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if code(error) == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from error
        raise


def _allow(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """SQLite's authorizer: reading is allowed, the rest, ATTACH included, is not."""
    reads = action in _READING or (action == sqlite3.SQLITE_PRAGMA and (second is None or first in _PRAGMAS))
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY
