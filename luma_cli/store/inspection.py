"""Whether the database is sound, what is in it, and SQL of the user's own that cannot write anything anywhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luma_cli.errors import LumaError, UsageError
from luma_cli.store import database, evidence, rows, runs
from luma_cli.store.database import code, fetch_dicts, translated
from luma_cli.store.profiles import load
from luma_cli.store.rows import Origin, Row

TABLES = (
    *("configuration", "environment", "provenance", "attempt", "detail", "metric", "sample"),
    *("run", "run_metric", "evaluation", "evaluation_class", "evaluation_image", "evaluation_score"),
    "evidence_row",
    "latency_row",
)
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
# With an argument these still only read; every other pragma with an argument sets something.
_PRAGMAS = frozenset(
    ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list", "integrity_check"]
)
_STEPS = 1_000_000  # of SQLite's virtual machine, some 10 ms, between two looks for Ctrl-C
EXAMPLE = 'luma db query "SELECT backbone, gmacs, latency_eager_p50_ms FROM profiles"'
_BY_DEVICE = """
SELECT device_name, count(*) FROM attempt JOIN environment USING (environment_id) GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found; sound when `problems` is empty."""

    file: Path
    schema: int
    attempts: int
    runs: int
    evaluations: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Info:
    """What is in the database. `bytes` counts the write-ahead log too; schema 0 means that there is no file yet.

    by_status, by_device: number of attempts. first, last: start times of the oldest and the newest attempt.
    """

    file: Path = field(metadata={"json": "path"})
    bytes: int
    schema: int = field(metadata={"json": "database_schema"})
    journal: str
    rows: Mapping[str, int]
    by_status: Mapping[str, int]
    by_device: Mapping[str, int]
    first: str | None
    last: str | None


def check(given: str | Path | None = None) -> Checked:
    """Reads every row and recomputes every hash. Raises StoreError when the file cannot be opened at all."""
    file = database.path(given)
    with translated(file), closing(database.open_existing(file)) as connection:
        found = problems(connection)
        counts = {f"{table}s": 0 if found else _count(connection, table) for table in ("attempt", "run", "evaluation")}
        return Checked(file, database.schema_of(connection), **counts, problems=tuple(found))


def info(given: str | Path | None = None) -> Info:
    """Sizes and counts of the database. Raises StoreError when the file cannot be read."""
    file = database.path(given)
    connection = database.open_read(file)
    if connection is None:
        return Info(file, 0, 0, "", dict.fromkeys(TABLES, 0), {}, {}, None, None)
    with translated(file), closing(connection):
        counts = {table: _count(connection, table) for table in TABLES}
        times = "SELECT started_at FROM attempt ORDER BY started_unix_seconds {}, hash {} LIMIT 1"
        first, last = (connection.execute(times.format(way, way)).fetchone() or (None,) for way in ("ASC", "DESC"))
        return Info(
            file=file,
            bytes=sum(part.stat().st_size for part in (file, database.log_of(file)) if part.exists()),
            schema=database.schema_of(connection),
            journal=str(connection.execute("PRAGMA journal_mode").fetchone()[0]),
            rows=counts,
            by_status=dict(connection.execute("SELECT status, count(*) FROM attempt GROUP BY 1 ORDER BY 1")),
            by_device=dict(connection.execute(_BY_DEVICE)),
            first=first[0] or None,
            last=last[0] or None,
        )


def problems(connection: sqlite3.Connection, known: Collection[str] = ()) -> list[str]:
    """What is wrong with a database of our schema, one line each: pages, schema, keys, orphans, hashes, columns.

    Attempts whose hash is in `known` are not checked, which saves time in a merge.
    """
    try:
        damage = [line for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    strays = "PRAGMA foreign_key_check"
    # Each finding would make the next ones misleading.
    return (
        damage
        or list(_schema(connection))
        or [f"{row[0]} {row[1]} points to no {row[2]}" for row in connection.execute(strays)]
        or [
            *_parents(connection),
            *_attempts(connection, frozenset(known)),
            *runs.run_problems(connection),
            *runs.evaluation_problems(connection),
            *evidence.evidence_problems(connection),
        ]
    )


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _schema(connection: sqlite3.Connection) -> Iterator[str]:
    """Tables, indexes and views that are not as the migrations make them. A user's own tables are ignored."""
    query = "SELECT type, name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as fresh:
        database.migrate(fresh, database.migrations())
        expected = fresh.execute(query).fetchall()
    present = set(connection.execute(query))
    yield from (
        f"{kind} {name} is not as luma makes it" for kind, name, sql in expected if (kind, name, sql) not in present
    )


def _parents(connection: sqlite3.Connection) -> Iterator[str]:
    """Rows of the tables that attempts and runs share that are not what their hash says, or belong to none."""
    columns = {"configuration": "json", "environment": "identity", "provenance": "json"}
    for table, column in columns.items():
        owners = ("attempt",) if table == "configuration" else ("attempt", "run")
        for key, known, content in connection.execute(f"SELECT {table}_id, hash, {column} FROM {table}"):
            if not content.isascii() or rows.sha256(content) != known:
                yield f"{table} {key} is not what its hash says"
        unowned = " AND ".join(f"{table}_id NOT IN (SELECT {table}_id FROM {owner})" for owner in owners)
        for (key,) in connection.execute(f"SELECT {table}_id FROM {table} WHERE {unowned}"):
            yield f"{table} {key} belongs to no {' or '.join(owners)}"


def _attempts(connection: sqlite3.Connection, known: frozenset[str]) -> Iterator[str]:
    query = "SELECT attempt_id, hash, detail.attempt_id FROM attempt LEFT JOIN detail USING (attempt_id) ORDER BY 1"
    for key, content, detail in connection.execute(query).fetchall():
        if detail is None:
            yield f"attempt {key} has no detail"
        elif content not in known:
            try:
                yield from (f"attempt {key}: {fault}" for fault in _faults(connection, key))
            except LumaError as error:
                yield f"attempt {key}: {error}"


def _faults(connection: sqlite3.Connection, key: int) -> Iterator[str]:
    """Columns of attempt `key` that differ from what saving its profile again would write."""
    attempt = _stored(connection, "attempt", key)
    origin = Origin(attempt["plan"], attempt["device_index"], attempt["device_uuid"])
    again = rows.profile_rows(load(connection, [key])[key], origin, attempt["started_unix_seconds"])
    for table, expected in (("attempt", again.attempt), *again.parents.items()):
        stored = attempt if table == "attempt" else _stored(connection, table, attempt[f"{table}_id"])
        if wrong := [column for column, value in expected.items() if stored[column] != value]:
            yield f"{', '.join(wrong)} of its {table} is not what was saved"


def _stored(connection: sqlite3.Connection, table: str, key: int) -> Row:
    return fetch_dicts(connection, f"SELECT * FROM {table} WHERE {table}_id = ?", [key])[0]


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
    remedy = "`luma profile NAME` makes it, --db FILE or LUMA_DB names another"
    with closing(database.open_existing(file, remedy)) as connection:
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
