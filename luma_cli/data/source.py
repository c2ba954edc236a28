"""Where a dataset's files are: a folder, or a zip archive that is read in place without extraction. No torch.

Both give the same names, sizes and bytes. Names are paths with `/`, relative to the dataset's own folder.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from luma_cli.errors import BadSample, DataError

# Far more than any image below the cap of pixels needs; what says it is larger is not read.
MAX_FILE_BYTES = 1 << 28
_TROUBLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, KeyError)


class Source(Protocol):
    """Files of a dataset. It can be pickled, and read from several processes."""

    def sizes(self, folder: str, recursive: bool) -> dict[str, int] | None:
        """Bytes of each file of `folder`, by its path relative to it; None when there is no such folder."""

    def read(self, path: str) -> bytes:
        """The whole file. Raises BadSample, naming it."""

    def open(self, path: str) -> IO[bytes]:
        """The file, to read its beginning. Raises OSError, zipfile.BadZipFile or KeyError."""

    def where(self, path: str) -> str:
        """The file as a message names it."""


class Folder:
    """A folder with the files of a dataset, extracted."""

    __slots__ = ("base",)

    def __init__(self, base: Path) -> None:
        self.base = base

    def sizes(self, folder: str, recursive: bool) -> dict[str, int] | None:
        """See Source. Files and folders whose names start with a dot are left out. Raises DataError."""
        top = self.base / folder
        if not top.is_dir():
            return None
        try:
            return dict(_walk(top, "", recursive))
        except OSError as error:
            raise DataError(f"{top}: cannot be read: {error.strerror or error}; check its permissions") from error

    def read(self, path: str) -> bytes:
        """See Source."""
        try:
            with self.open(path) as file:
                _refuse_large(self.where(path), os.fstat(file.fileno()).st_size)
                return file.read()
        except OSError as error:
            raise BadSample(f"{self.where(path)}: cannot be read: {error.strerror or error}") from error

    def open(self, path: str) -> IO[bytes]:
        """See Source."""
        return (self.base / path).open("rb")

    def where(self, path: str) -> str:
        """See Source."""
        return str(self.base / path)


def _walk(top: Path, inside: str, recursive: bool) -> Iterator[tuple[str, int]]:
    with os.scandir(top / inside) as entries:
        for entry in entries:
            name = f"{inside}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield name, entry.stat().st_size
            elif recursive and entry.is_dir() and not _leads_back(entry):
                yield from _walk(top, f"{name}/", recursive)


def _leads_back(entry: os.DirEntry[str]) -> bool:
    """Whether a folder is a link to one that it lies in."""
    return entry.is_symlink() and Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())


class Archive:
    """A zip archive. Each process opens it once, when it first reads; a copy that is pickled is closed."""

    __slots__ = ("file", "top", "_opened", "_prefix", "_process")

    def __init__(self, file: Path, top: str = "") -> None:
        """`top`: the folder in the archive that holds everything, empty for none; an archive without it is read too."""
        self.file = file
        self.top = top
        self._opened: zipfile.ZipFile | None = None
        self._prefix = ""
        self._process = 0

    def __getstate__(self) -> tuple[Path, str]:
        return self.file, self.top

    def __setstate__(self, state: tuple[Path, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def sizes(self, folder: str, recursive: bool) -> dict[str, int] | None:
        """See Source. Raises DataError for an archive that is damaged or unsafe."""
        members = self._zip().infolist()
        prefix = f"{self._prefix}{folder}/" if folder else self._prefix
        found, seen = {}, False
        for member in members:
            if not member.filename.startswith(prefix):
                continue
            seen, name = True, member.filename[len(prefix) :]
            hidden = any(part.startswith(".") for part in name.split("/"))
            if name and not member.is_dir() and not hidden and (recursive or "/" not in name):
                found[name] = member.file_size
        return found if seen else None

    def read(self, path: str) -> bytes:
        """See Source."""
        try:
            opened = self._zip()
            member = opened.getinfo(self._prefix + path)
            _refuse_large(self.where(path), member.file_size)
            return opened.read(member)
        except _TROUBLE as error:
            raise BadSample(f"{self.where(path)}: cannot be read: {error}; download the archive again") from error

    def open(self, path: str) -> IO[bytes]:
        """See Source."""
        opened = self._zip()
        return opened.open(self._prefix + path)

    def where(self, path: str) -> str:
        """See Source."""
        return f"{self.file}: {path}"

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._opened is not None and self._process == os.getpid():
            self._opened.close()
        self._opened = None

    def _zip(self) -> zipfile.ZipFile:
        """The handle of this process: one that a fork brought along shares its place in the file with the parent's."""
        if self._opened is None or self._process != os.getpid():
            self._opened, self._process = _open_zip(self.file), os.getpid()
            top = f"{self.top}/"
            inside = self.top and any(name.startswith(top) for name in self._opened.NameToInfo)
            self._prefix = top if inside else ""
        return self._opened


def _open_zip(file: Path) -> zipfile.ZipFile:
    """The archive, its directory read and every name in it checked. Raises DataError."""
    try:
        opened = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{file}: {_size_of(file)} bytes and no whole zip archive ({error}), perhaps a download that stopped; "
            "download it again, or delete it if the files are extracted beside it"
        ) from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    for member in opened.infolist():
        problem = _unsafe(member)
        if problem:
            opened.close()
            raise DataError(f"{file}: the member {member.filename!r} {problem}; use the official archive")
    return opened


def _size_of(file: Path) -> str:
    try:
        return f"{file.stat().st_size:,}"
    except OSError:
        return "unknown"


def _unsafe(member: zipfile.ZipInfo) -> str:
    """Why a member may not be read, empty for a sound one."""
    name = member.filename
    if name.startswith("/") or "\\" in name or ":" in name.partition("/")[0] or ".." in PurePosixPath(name).parts:
        return "leads out of the archive"
    return "is encrypted" if member.flag_bits & 1 else ""


def _refuse_large(where: str, num_bytes: int) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise BadSample(f"{where}: {num_bytes:,} bytes, expected at most {MAX_FILE_BYTES:,}")


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turns what can go wrong while the beginning of a file is read into BadSample, naming the file."""
    try:
        yield
    except _TROUBLE as error:
        raise BadSample(f"{where}: cannot be read: {error}") from error
