"""The one SQLite file: where it is, how it is opened for reading and for writing.

Reading uses the standard library alone. Writing goes through sqlite-utils, in WAL mode with full synchronisation: a
process killed at any moment loses at most what it had not yet been told was kept.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from luma_cli.errors import StoreError
from luma_cli.store import header, migrations
from luma_cli.store.faults import ELSEWHERE, translated

if TYPE_CHECKING:
    from sqlite_utils import Database

BUSY_SECONDS = 30.0
_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables


class StoreWarning(UserWarning):
    """Something about the database that works, but differently than expected."""


def path(given: str | Path | None = None) -> Path:
    """The database file: `given` (--db), else $LUMA_DB, else `luma.db` in the platform's data folder."""
    chosen = given or os.environ.get("LUMA_DB")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return platformdirs.user_data_path("luma", appauthor=False) / "luma.db"


def open_read(given: str | Path | None = None) -> sqlite3.Connection | None:
    """A read-only connection, or None when there is no database yet.

    A database of an older schema is migrated first. Raises StoreError for a file that is not ours, cut off, of a newer
    schema, or cannot be read.
    """
    file = path(given)
    with translated(file):
        if not file.exists():
            return None
        header.verify(file)
        connection = _reader(file)
        if _accepted(connection, file) == len(migrations.migrations()):
            return connection
        connection.close()
        open_write(file).close()
        return _reader(file)


def open_write(given: str | Path | None = None, *, steps: list[migrations.Migration] | None = None) -> Database:
    """A connection that may write, the file created and migrated as needed. Close it when done.

    `steps` replaces the migrations that ship. Warns StoreWarning where the file system refuses write-ahead logging.
    Raises StoreError, file untouched, for one that is not ours, cut off, of a newer schema, or cannot be written.
    """
    from sqlite_utils import Database

    file = path(given)
    steps = steps or migrations.migrations()
    with translated(file):
        if not file.exists():
            _create(file, steps)
        _refuse_newer(file, len(steps))
        connection = connect(file, "rw")
        try:
            _configure(connection, file)
            migrations.apply(connection, steps)
        except BaseException:
            connection.close()
            raise
    return Database(connection, execute_plugins=False)


def connect(file: Path, mode: str, **parameters: str) -> sqlite3.Connection:
    """A plain connection to `file` by URI, in autocommit; `mode` is ro, rw or rwc. Nothing of it is checked."""
    query = "&".join(f"{name}={value}" for name, value in {"mode": mode, **parameters}.items())
    uri = f"{file.absolute().as_uri()}?{query}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def file_of(connection: sqlite3.Connection) -> Path:
    """The file behind `connection`."""
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])


def _create(file: Path, steps: list[migrations.Migration]) -> None:
    """Puts an empty database at `file` in one step, so that no other process ever sees half of it."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreError(f"SQLite is {sqlite3.sqlite_version}, expected at least 3.37; use a newer Python build")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        fresh = Path(folder) / file.name
        connection = connect(fresh, "rwc")
        try:
            migrations.apply(connection, steps)
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()
        publish(fresh, file)


def publish(fresh: Path, file: Path) -> bool:
    """Gives `fresh` the name `file` unless that exists: the first of several processes wins. Tells whether it did."""
    try:
        os.link(fresh, file)
    except FileExistsError:
        return False
    except OSError:  # no hard links on this file system
        if file.exists():
            return False
        fresh.replace(file)
    return True


def _configure(connection: sqlite3.Connection, file: Path) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        refusal = f"{file}: write-ahead logging is refused here, using a {mode} journal"
        warnings.warn(f"{refusal}; readers and writers will wait for each other", StoreWarning, stacklevel=3)


def _refuse_newer(file: Path, known: int) -> None:
    """Raises StoreError for a foreign, cut off or newer file before anything could write to it."""
    schema = header.verify(file).schema
    if header.pending(file):  # the log may hold a newer page 1
        connection = _reader(file)
        schema = migrations.schema(connection)
        connection.close()
    if schema > known:
        raise StoreError(_newer(file, schema, known))


def _accepted(connection: sqlite3.Connection, file: Path) -> int:
    schema, known = migrations.schema(connection), len(migrations.migrations())
    if schema > known:
        connection.close()
        raise StoreError(_newer(file, schema, known))
    return schema


def _newer(file: Path, schema: int, known: int) -> str:
    remedy = f"upgrade with `pip install -U luma-seg` or {ELSEWHERE}"
    return f"{file} has schema {schema}, this luma knows {known}; it was left as it is: {remedy}"


def _reader(file: Path) -> sqlite3.Connection:
    """A read-only connection that has read once. In a folder that cannot be written a WAL database has no place for its
    shared memory; if no log with content is there either, the file is complete and nobody can be writing to it.
    """
    connection = connect(file, "ro")
    try:
        migrations.schema(connection)
    except sqlite3.OperationalError:
        connection.close()
        if header.pending(file) or os.access(file.parent, os.W_OK):
            raise
        connection = connect(file, "ro", immutable="1")
        migrations.schema(connection)
    return connection
