"""What SQLite and the file system report, as one line that says which file and what to type next."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from luma_cli.errors import StoreError

ELSEWHERE = "name another file with --db FILE or LUMA_DB"

# Primary result codes (the low byte of SQLite's extended codes) that a user can do something about.
_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_CLOSED = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@contextmanager
def translated(file: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the file system inside the block into StoreError about `file`."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(_sqlite_message(error, file)) from error
    except OverflowError as error:
        raise StoreError(
            f"{file}: a whole number is too large for the database ({error}); nothing was written"
        ) from error
    except OSError as error:
        raise StoreError(
            f"{file} cannot be used: {error.strerror or error}{_space(error, file)}; {ELSEWHERE}"
        ) from error


def code(error: sqlite3.Error) -> int:
    """SQLite's primary result code of `error`, 0 where Python itself raised it."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _sqlite_message(error: sqlite3.Error, file: Path) -> str:
    primary = code(error)
    if primary in _FULL:
        space = f"{error}; {free_bytes(file)} bytes free there"
        return f"{file} could not be written ({space}): nothing was kept; free some space or {ELSEWHERE}"
    if primary in _CLOSED:
        return f"{file} cannot be opened or written ({error}); {ELSEWHERE}"
    if primary in _BUSY:
        return f"{file} is held by another process ({error}); wait for it to finish and try again"
    if primary in _DAMAGED:
        return f"{file} is damaged ({error}); it was left as it is: restore a backup or {ELSEWHERE}"
    return f"{file}: {error}; see `luma db check`"


def _space(error: OSError, file: Path) -> str:
    return f" ({free_bytes(file)} bytes free)" if error.errno == errno.ENOSPC else ""


def free_bytes(file: Path) -> int:
    """Bytes free on the file system that holds `file`, 0 when even that cannot be told."""
    for folder in file.absolute().parents:
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    return 0
