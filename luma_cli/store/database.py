"""The one SQLite file: where it is, how it is opened for reading and for writing.

Reading uses the standard library only. Writing goes through sqlite-utils, in WAL mode with full synchronisation: a
process killed at any moment loses at most a transaction that had not returned.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import shutil
import sqlite3
import struct
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

from luma_cli import files
from luma_cli.errors import StoreError, UsageError

if TYPE_CHECKING:
    from sqlite_utils import Database


BUSY_SECONDS = 30.0
_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables
APPLICATION_ID = 0x4C554D41  # 'LUMA', as db/001_initial.sql sets it
_MAGIC = b"SQLite format 3\0"
# Page size, number of pages, user_version and application_id: https://www.sqlite.org/fileformat2.html section 1.3.
_HEADER = struct.Struct(">16x H 10x I 28x I 4x I 28x")
_STEP_NAME = re.compile(r"(\d{3})_[a-z0-9_]+\.sql")
ELSEWHERE = "name another file with --db FILE or LUMA_DB"
_LOCAL = "as on some network file systems; name a file on a local disk, e.g. LUMA_DB=/tmp/luma.db or --db /tmp/luma.db"
_NO_SHARED_MEMORY = {sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMOPEN, sqlite3.SQLITE_IOERR_SHMLOCK}


class StoreWarning(UserWarning):
    """Something about the database that works, but differently than expected."""


def path(given: str | Path | None = None) -> Path:
    """The database file: `given` (--db), else $LUMA_DB, else `luma.db` in the platform's data folder."""
    chosen = Path(given or os.environ.get("LUMA_DB") or files.user_folder("data") / "luma.db")
    try:
        return chosen.expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"the database {chosen}: there is no such home folder; {ELSEWHERE}") from error


def open_read(given: str | Path | None = None) -> Connection | None:
    """A read-only connection, or None when there is no database yet. An older schema is migrated first.

    Raises StoreError for a file that is not ours, cut off, of a newer schema, or cannot be read.
    """
    file = path(given)
    with translated(file):
        if not file.exists():
            return None
        verify(file)
        known = len(migrations())
        connection = _reader(file, known)
        if schema_of(connection) == known:
            return connection
        connection.close()
        open_write(file).close()
        return _reader(file, known)


@contextmanager
def reading(given: str | Path | None = None) -> Iterator[Connection | None]:
    """The connection of `open_read`, closed after the block. Our own queries find nothing in None."""
    connection = open_read(given)
    with nullcontext() if connection is None else closing(connection):
        yield connection


def open_write(given: str | Path | None = None, *, steps: list[Path] | None = None) -> Database:
    """A connection that may write, the file created and migrated as needed. Close it when done.

    `steps` replaces the migrations that ship. Warns StoreWarning where the file system refuses write-ahead logging.
    Raises StoreError, file untouched, for one that is not ours, cut off, of a newer schema, or cannot be written.
    """
    from sqlite_utils import Database  # reading does without

    file, steps = path(given), steps or migrations()
    with translated(file):
        if not file.exists():
            _create(file, steps)
        verify(file)
        if log_of(file).exists():  # the log may hold a newer schema: look before anything is written
            _reader(file, len(steps)).close()
        connection = _opened(file, "rw")
        try:
            _refuse_newer(connection, file, len(steps))
            _configure(connection, file)
            migrate(connection, steps)
        except BaseException:
            connection.close()
            raise
    return Database(connection, execute_plugins=False)


def open_existing(given: str | Path | None, remedy: str = "name the database with --db FILE or LUMA_DB") -> Connection:
    """As `open_read`, but raises StoreError, with the `remedy`, when there is no database."""
    if (connection := open_read(given)) is None:
        raise StoreError(f"{path(given)} does not exist; {remedy}")
    return connection


def fetch(connection: Connection | None, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """All rows of one of our own queries; none without a database. Raises StoreError."""
    if connection is None:
        return []
    with translated(file_of(connection)):
        return connection.execute(query, values).fetchall()


def fetch_dicts(connection: Connection | None, query: str, values: Sequence[object] = ()) -> list[dict[str, Any]]:
    """As `fetch`, each row by column."""
    if connection is None:
        return []
    with translated(file_of(connection)):
        cursor = connection.execute(query, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def connect(file: Path, mode: str, **parameters: str) -> Connection:
    """A plain connection to `file` by URI, in autocommit; `mode` is ro, rw or rwc. Nothing of it is checked."""
    query = "&".join(f"{name}={value}" for name, value in {"mode": mode, **parameters}.items())
    uri = f"{file.absolute().as_uri()}?{query}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def file_of(connection: Connection) -> Path:
    """The file behind `connection`."""
    return Path(connection.execute("PRAGMA database_list").fetchone()[2])


def _create(file: Path, steps: list[Path]) -> None:
    """Puts an empty database at `file` in one step, so that no other process ever sees half of it."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreError(f"SQLite is {sqlite3.sqlite_version}, expected at least 3.37; use a newer Python build")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        fresh = Path(folder) / file.name
        with closing(_opened(fresh, "rwc")) as connection:
            migrate(connection, steps)
            if not _lacking(fresh):
                connection.execute("PRAGMA journal_mode = WAL")
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


def _configure(connection: Connection, file: Path) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal" and not _lacking(file):
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        refusal = f"{file}: write-ahead logging is refused here, using a {mode} journal"
        warnings.warn(f"{refusal}; readers and writers will wait for each other", StoreWarning, stacklevel=3)


def _refuse_newer(connection: Connection, file: Path, known: int) -> None:
    if (schema := schema_of(connection)) > known:
        remedy = f"upgrade with `pip install -U luma-seg` or {ELSEWHERE}"
        raise StoreError(f"{file} has schema {schema}, this luma knows {known}; it was not changed: {remedy}")


def _reader(file: Path, known: int) -> Connection:
    """A read-only connection that has read once, so that it can read. Raises StoreError for a schema above `known`."""
    try:
        connection = _opened(file, "ro")
    except sqlite3.OperationalError as error:
        connection = _reader_of_last_resort(file, error)
    try:
        _refuse_newer(connection, file, known)
    except BaseException:
        connection.close()
        raise
    return connection


def _reader_of_last_resort(file: Path, error: sqlite3.OperationalError) -> Connection:
    """A read-only connection where the plain one fails with `error`, which is raised again if there is no way."""
    if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK:
        # A writer that died with a rollback journal left half a transaction, which only a writer undoes.
        with closing(connect(file, "rw")) as writer:
            schema_of(writer)
        return connect(file, "ro")
    if pending(file) or os.access(file.parent, os.W_OK):
        raise error
    # In a read-only folder a WAL database has no place for its shared memory. Without a log the file is complete, and
    # nobody can be writing to it.
    return connect(file, "ro", immutable="1")


def _opened(file: Path, mode: str) -> Connection:
    """As `connect`, and has read once, so that it can read.

    Waits for a lock of others, but not where there are no locks. Without shared memory, the write-ahead log becomes a
    rollback journal, which needs none.
    """
    connection = connect(file, mode)
    try:
        connection.execute("PRAGMA busy_timeout = 100")
        try:
            schema_of(connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in _NO_SHARED_MEMORY:
                connection.close()
                with closing(connect(file, "rw")) as alone:
                    alone.execute("PRAGMA locking_mode = EXCLUSIVE")  # the index of the log is then in our own memory
                    alone.execute("PRAGMA journal_mode = DELETE")
                connection = connect(file, mode)
            elif code(error) != sqlite3.SQLITE_BUSY or _lacking(file):
                raise
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1e3:.0f}")
        schema_of(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _lacking(file: Path) -> str:
    """What SQLite needs and files beside `file` do not have: `locks` or `shared memory`; empty if all is there."""
    # Tried on another file: to close this one would drop SQLite's own locks.
    with suppress(OSError), tempfile.NamedTemporaryFile(prefix=f".{file.name}.", suffix="-shm", dir=file.parent) as it:
        it.truncate(mmap.PAGESIZE)
        try:
            fcntl.lockf(it, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "locks"
        try:
            mmap.mmap(it.fileno(), mmap.PAGESIZE).close()
        except OSError:
            return "shared memory"
    return ""


@contextmanager
def translated(file: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the file system inside the block into StoreError about `file`."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(_sqlite_message(error, file)) from error
    except OverflowError as error:
        said = f"a whole number is too large for the database ({error}); nothing was written"
        raise StoreError(f"{file}: {said}") from error
    except OSError as error:
        space = f" ({free_bytes(file)} bytes free)" if error.errno == errno.ENOSPC else ""
        raise StoreError(f"{file} cannot be used: {error.strerror or error}{space}; {ELSEWHERE}") from error


def _sqlite_message(error: sqlite3.Error, file: Path) -> str:
    match code(error):
        case sqlite3.SQLITE_FULL:
            space = f"{error}; {free_bytes(file)} bytes free there"
            return f"{file} could not be written ({space}): nothing was kept; free some space or {ELSEWHERE}"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_PROTOCOL | sqlite3.SQLITE_IOERR if lacking := _lacking(file):
            return f"{file} is in a folder where files have no {lacking}, {_LOCAL}"
        case sqlite3.SQLITE_IOERR:
            space = f"{error}; {free_bytes(file)} bytes free there"
            return f"{file} could not be read or written ({space}): nothing was kept; check the disk or {ELSEWHERE}"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return f"{file} cannot be opened or written ({error}); {ELSEWHERE}"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
            return f"{file} is held by another process ({error}); wait for it to finish and try again"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return f"{file} is damaged ({error}); it was not changed: restore a backup or {ELSEWHERE}"
    return f"{file}: {error}; see `luma db check`"


def code(error: sqlite3.Error) -> int:
    """SQLite's primary result code of `error`, 0 where Python itself raised it."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def free_bytes(file: Path) -> int:
    """Bytes free on the file system that holds `file`, 0 when that is not known."""
    folder = next((folder for folder in file.absolute().parents if folder.is_dir()), None)
    return shutil.disk_usage(folder).free if folder else 0


def verify(file: Path) -> int:
    """The schema number in the header of `file`; newer pages may still be in the write-ahead log.

    Read without SQLite, so that nothing is locked, created or written. Raises StoreError unless it is a whole luma
    database, OSError when it cannot be read.
    """
    if file.is_dir():
        raise StoreError(f"{file} is a folder, expected a database file; {ELSEWHERE}")
    with file.open("rb") as opened:
        head = opened.read(_HEADER.size)
    if not head:
        raise StoreError(f"{file} is empty, not a luma database; remove it or {ELSEWHERE}")
    if not head.startswith(_MAGIC[: len(head)]):
        raise StoreError(f"{file} is not a luma database (not SQLite at all); {ELSEWHERE}")
    if len(head) < _HEADER.size:
        raise StoreError(f"{file} is cut off after {len(head)} bytes; restore a backup or {ELSEWHERE}")
    page_bytes, pages, schema, application_id = _HEADER.unpack(head)
    if application_id != APPLICATION_ID:
        raise StoreError(f"{file} is an SQLite database of another program; {ELSEWHERE}")
    expected = (65536 if page_bytes == 1 else page_bytes) * pages
    # With a log or journal beside it SQLite first brings the main file to its true length.
    if not pending(file) and (length := file.stat().st_size) < expected:
        raise StoreError(f"{file} is cut off: {length} of {expected} bytes; restore a backup or {ELSEWHERE}")
    return int(schema)


def pending(file: Path) -> bool:
    """Whether a write-ahead log or rollback journal with content lies beside `file`."""
    for beside in (log_of(file), file.with_name(f"{file.name}-journal")):
        with suppress(FileNotFoundError):
            if beside.stat().st_size:
                return True
    return False


def log_of(file: Path) -> Path:
    """Where the write-ahead log of `file` lies."""
    return file.with_name(f"{file.name}-wal")


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """The only place where luma begins to write: all of the block is kept, or none of it."""
    # IMMEDIATE takes the write lock at once, and can wait for it. A transaction that starts as a reader and then writes
    # fails with `database is locked` whatever the timeout.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def migrations(folder: Path | None = None) -> list[Path]:
    """The SQL files in `folder` (default: the shipped `db/`) in order. Raises StoreError unless numbered 1, 2, ..."""
    folder = folder or files.root() / "db"
    found = [file for file in sorted(folder.glob("*.sql")) if _STEP_NAME.fullmatch(file.name)]
    if [int(file.name[:3]) for file in found] != list(range(1, len(found) + 1)) or not found:
        raise StoreError(f"{folder} holds migrations {[file.name for file in found]}, expected 001_, 002_, ...")
    return found


def schema_of(connection: Connection) -> int:
    """The number of the last step applied, 0 for a new file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: Connection, steps: list[Path]) -> None:
    """Applies the steps that are pending, each whole or not at all; PRAGMA user_version becomes their number."""
    # Not sqlite-utils' migrations: they need a table of names in the user's database, and sqlite-utils for reading.
    for number, file in enumerate(steps, start=1):
        if schema_of(connection) >= number:
            continue
        with transaction(connection):
            if schema_of(connection) >= number:  # another process applied it while this one waited for the lock
                continue
            for statement in _statements(file):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def _statements(file: Path) -> Iterator[str]:
    statement = ""
    for part in re.split("(?<=;)", file.read_text(encoding="utf-8")):
        statement += part
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise StoreError(f"{file}: the last statement has no end, expected `;`")
