"""The one SQLite file: where it is, how it is opened for reading and for writing.

Reading uses the standard library alone. Writing goes through sqlite-utils, in WAL mode with full synchronisation: a
process killed at any moment loses at most what it had not yet been told was kept.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import warnings
from contextlib import closing
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
        known = len(migrations.migrations())
        connection = _reader(file, known)
        if migrations.schema(connection) == known:
            return connection
        connection.close()
        open_write(file).close()
        return _reader(file, known)


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
        header.verify(file)
        if header.log_of(file).exists():  # the log may hold a newer schema: look before anything is written
            _reader(file, len(steps)).close()
        connection = connect(file, "rw")
        try:
            _refuse_newer(connection, file, len(steps))
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
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


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
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        refusal = f"{file}: write-ahead logging is refused here, using a {mode} journal"
        warnings.warn(f"{refusal}; readers and writers will wait for each other", StoreWarning, stacklevel=3)


def _refuse_newer(connection: sqlite3.Connection, file: Path, known: int) -> None:
    if (schema := migrations.schema(connection)) > known:
        remedy = f"upgrade with `pip install -U luma-seg` or {ELSEWHERE}"
        raise StoreError(f"{file} has schema {schema}, this luma knows {known}; it was left as it is: {remedy}")


def _reader(file: Path, known: int) -> sqlite3.Connection:
    """A read-only connection that has read once, so that it can read. Raises StoreError for a schema above `known`."""
    connection = connect(file, "ro")
    try:
        try:
            migrations.schema(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            connection = _reader_of_last_resort(file, error)
        _refuse_newer(connection, file, known)
    except BaseException:
        connection.close()
        raise
    return connection


def _reader_of_last_resort(file: Path, error: sqlite3.OperationalError) -> sqlite3.Connection:
    """A read-only connection where the plain one fails with `error`, which is raised again if there is no way.

    A writer that died with a rollback journal left half a transaction, which only a connection that may write undoes.
    And in a folder that cannot be written a WAL database has no place for its shared memory; if no log with content is
    there either, the file is complete and nobody can be writing to it.
    """
    if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK:
        with closing(connect(file, "rw")) as writer:
            migrations.schema(writer)
        return connect(file, "ro")
    if header.pending(file) or os.access(file.parent, os.W_OK):
        raise error
    return connect(file, "ro", immutable="1")
