"""The first 100 bytes of a SQLite file, read without SQLite: whether it is ours, and whole.

Format: https://www.sqlite.org/fileformat2.html section 1.3. Nothing is locked, created or written, so a file that
is not ours stays as it is to the last byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from luma_cli.errors import StoreError
from luma_cli.store.faults import ELSEWHERE

APPLICATION_ID = 0x4C554D41  # 'LUMA', as db/001_initial.sql sets it
_MAGIC = b"SQLite format 3\0"
_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Header:
    """Facts of a SQLite file as its main file states them; newer pages may still lie in the write-ahead log."""

    schema: int
    application_id: int
    page_bytes: int
    pages: int

    @property
    def bytes(self) -> int:
        """Length that the file must have at least."""
        return self.page_bytes * self.pages


def read(file: Path) -> Header:
    """The header of `file`. Raises StoreError when it is no SQLite file, OSError when it cannot be read."""
    if file.is_dir():
        raise StoreError(f"{file} is a folder, expected a database file; {ELSEWHERE}")
    with file.open("rb") as opened:
        head = opened.read(_LENGTH)
    if not head:
        raise StoreError(f"{file} is empty, not a luma database; remove it or {ELSEWHERE}")
    if not head.startswith(_MAGIC[: len(head)]):
        raise StoreError(f"{file} is not a luma database (not SQLite at all); {ELSEWHERE}")
    if len(head) < _LENGTH:
        raise StoreError(f"{file} is cut off after {len(head)} bytes; restore a backup or {ELSEWHERE}")
    page_bytes = _number(head, 16, 2)
    return Header(
        schema=_number(head, 60, 4),
        application_id=_number(head, 68, 4),
        page_bytes=65536 if page_bytes == 1 else page_bytes,
        pages=_number(head, 28, 4),
    )


def verify(file: Path) -> Header:
    """The header of `file`. Raises StoreError unless it is a whole luma database, OSError when it cannot be read."""
    header = read(file)
    if header.application_id != APPLICATION_ID:
        raise StoreError(f"{file} is an SQLite database of another program; {ELSEWHERE}")
    # A log or journal beside it means that SQLite will first bring the main file to its true length.
    if not pending(file) and (length := file.stat().st_size) < header.bytes:
        raise StoreError(f"{file} is cut off: {length} of {header.bytes} bytes; restore a backup or {ELSEWHERE}")
    return header


def pending(file: Path) -> bool:
    """Whether a write-ahead log or rollback journal with content lies beside `file`."""
    return _size(log_of(file)) > 0 or _size(file.with_name(f"{file.name}-journal")) > 0


def log_of(file: Path) -> Path:
    """Where the write-ahead log of `file` lies."""
    return file.with_name(f"{file.name}-wal")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _number(head: bytes, start: int, length: int) -> int:
    return int.from_bytes(head[start : start + length], "big")
