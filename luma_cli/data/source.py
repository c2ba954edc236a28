"""Finds a dataset and reads its files: a folder, or a zip archive that is read in place. No torch.

Both give the same names, sizes and bytes. Names are paths with `/`, relative to the dataset's own folder. Places: the
folder given, else $LUMA_DATA, else `luma.toml`, whose relative paths start at its own folder:

    [data]
    root = "/datasets"            # a folder that holds datasets
    ade20k = "/scratch/ade"       # the place of one of them
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from luma_cli import files
from luma_cli.catalogue.datasets import DatasetCard, SplitCard, card_names
from luma_cli.catalogue.reading import require
from luma_cli.errors import BadSample, DataError

# Far more than any image below the cap of pixels needs; what says it is larger is not read.
MAX_FILE_BYTES = 1 << 28
_TROUBLE = (
    *(OSError, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


def shown(name: str) -> str:
    r"""A name of a file for people: what no terminal should be sent, or cannot be encoded, as an escape sequence.

    >>> shown("a\x1b[31m.jpg")
    'a\\x1b[31m.jpg'
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)


class Folder:
    """A folder with the extracted files of a dataset."""

    __slots__ = ("base",)

    def __init__(self, base: Path) -> None:
        self.base = base

    def sizes(self, folder: str, recursive: bool) -> dict[str, int] | None:
        """Bytes of each file of `folder`, by its path relative to it; None when there is no such folder.

        Files and folders whose names start with a dot are left out. Raises DataError.
        """
        top = self.base / folder
        if not top.is_dir():
            return None
        try:
            return dict(_walk(top, "", recursive))
        except OSError as error:
            raise DataError(f"{top}: cannot be read: {error.strerror or error}; check its permissions") from error

    def read(self, path: str) -> bytes:
        """The whole file. Raises BadSample, naming it."""
        try:
            with self.open(path) as file:
                _refuse_large(self.where(path), os.fstat(file.fileno()).st_size)
                return file.read()
        except OSError as error:
            raise BadSample(f"{self.where(path)}: cannot be read: {error.strerror or error}") from error

    def open(self, path: str) -> IO[bytes]:
        """The file, to read its beginning inside `reading`."""
        return (self.base / path).open("rb")

    def where(self, path: str) -> str:
        """The file as a message names it."""
        return shown(str(self.base / path))


def _walk(top: Path, inside: str, recursive: bool) -> Iterator[tuple[str, int]]:
    with os.scandir(top / inside) as entries:
        for entry in entries:
            name = f"{inside}{entry.name}"
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield name, entry.stat().st_size
            elif recursive and entry.is_dir():
                path = Path(entry.path)
                # A link to a folder that it lies in would be followed without end.
                if not (entry.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())):
                    yield from _walk(top, f"{name}/", recursive)


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
        """See Folder. Raises DataError for an archive that is damaged or unsafe."""
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
        """See Folder."""
        try:
            opened = self._zip()
            member = opened.getinfo(self._prefix + path)
            _refuse_large(self.where(path), member.file_size)
            return opened.read(member)
        except _TROUBLE as error:
            raise BadSample(f"{self.where(path)}: cannot be read: {error}; download the archive again") from error

    def open(self, path: str) -> IO[bytes]:
        """See Folder."""
        opened = self._zip()  # before the prefix is read, which opening sets
        return opened.open(self._prefix + path)

    def where(self, path: str) -> str:
        """See Folder."""
        return shown(f"{self.file}: {path}")

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._opened is not None and self._process == os.getpid():
            self._opened.close()
        self._opened = None

    def _zip(self) -> zipfile.ZipFile:
        """The handle of this process. One inherited by a fork shares its position in the file with the parent's."""
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
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: the name {error.object[:60]!r} in it is not UTF-8, as it says; pack it again"
        ) from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from error
    except _TROUBLE as error:
        raise DataError(
            f"{file}: {file.stat().st_size:,} bytes and no whole zip archive ({error}), perhaps a download that "
            "stopped; download it again, or delete it if the files are extracted beside it"
        ) from error
    for member in opened.infolist():
        name, problem = member.filename, ""
        if name.startswith("/") or "\\" in name or ":" in name.partition("/")[0] or ".." in name.split("/"):
            problem = "leads out of the archive"
        elif member.flag_bits & 1:
            problem = "is encrypted"
        if problem:
            opened.close()
            raise DataError(f"{file}: the member {name!r} {problem}; use the official archive")
    return opened


def _refuse_large(where: str, num_bytes: int) -> None:
    if num_bytes > MAX_FILE_BYTES:
        raise BadSample(f"{where}: {num_bytes:,} bytes, expected at most {MAX_FILE_BYTES:,}")


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turns errors of reading the beginning of a file into BadSample, naming the file."""
    try:
        yield
    except _TROUBLE as error:
        raise BadSample(f"{where}: cannot be read: {error}") from error


FILE_NAME = "luma.toml"
VARIABLE = "LUMA_DATA"


Source = Folder | Archive


@dataclass(frozen=True, slots=True)
class Root:
    """Where a dataset was found. place: the folder that was given; sources: what is read there, the first wins."""

    place: Path
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class SearchedPlace:
    """A folder to look into, and who named it."""

    folder: Path
    named_by: str

    def __str__(self) -> str:
        return f"{self.folder} ({self.named_by})" + ("" if self.folder.exists() else ", which does not exist")


def find_root(card: DatasetCard, given: str | Path | None = None, known: str = "") -> Root:
    """Where the dataset is: in `given`, else where it was `known` to be, else in the first place that holds it.

    A place may be the folder of the archives, an archive, the extracted folder or its parent. Archives are read before
    extracted folders. Raises DataError with what was looked for and where, BadCard for a wrong `luma.toml`.
    """
    places = _places(card, given)
    if known and given is None:
        places.insert(0, SearchedPlace(Path(known), "where the run found it"))
    for place in places:
        try:
            sources = tuple(_sources(card, place.folder))
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise DataError(f"{place.folder}: cannot be read: {error.strerror or error}") from error
        if sources:
            return Root(place.folder, sources)
    raise DataError(_not_found(card, places))


def _settings_files() -> tuple[Path, Path]:
    """The current folder's wins over the user's."""
    return Path.cwd() / FILE_NAME, files.user_folder("config") / FILE_NAME


def _places(card: DatasetCard, given: str | Path | None) -> list[SearchedPlace]:
    if given is not None:
        return [SearchedPlace(_expanded(given).absolute(), "--root")]
    places = [] if card.shipped else [SearchedPlace(Path(card.file).parent, "beside the card")]
    if variable := os.environ.get(VARIABLE):
        places.append(SearchedPlace(_expanded(variable).absolute(), f"${VARIABLE}"))
    settings = [(file, _folders_in(file)) for file in _settings_files() if file.is_file()]
    for key in (card.name, "root"):  # a dataset's own key wins, in whichever file it is
        for file, folders in settings:
            if key in folders:
                places.append(SearchedPlace(file.parent / _expanded(folders[key]), str(file)))
    return places


def _expanded(folder: str | Path) -> Path:
    return Path(os.path.expanduser(folder))  # unlike Path.expanduser, no error for the home of nobody


def _folders_in(file: Path) -> dict[str, str]:
    """Key of [data] -> folder."""
    values = require(str(file), files.read_toml(file), {"data": dict}, ())
    return require(f"{file}: [data]", values.get("data", {}), dict.fromkeys(("root", *card_names()), str), ())


def _sources(card: DatasetCard, place: Path) -> Iterator[Source]:
    """Every archive of the card at the place, then every folder that holds one of its split folders."""
    start = place.parent if place.is_file() and place.name in card.archives else place
    bases = (start, start / card.name)
    for base in bases:
        for name in card.archives:
            if (base / name).is_file():
                yield Archive(base / name, card.folder)
    if place.is_file() and place.suffix == ".zip" and place.name not in card.archives:
        yield Archive(place, card.folder)
    for base in bases:
        for inner in dict.fromkeys((base / card.folder, base)):
            if any((inner / folder).is_dir() for folder in _folders(card)):
                yield Folder(inner)


def _folders(card: DatasetCard) -> list[str]:
    """Its split folders identify a dataset; its own folder would not, as any place could be it."""
    return list(dict.fromkeys(folder for split in card.splits.values() for folder in (split.images, split.labels)))


def _not_found(card: DatasetCard, places: list[SearchedPlace]) -> str:
    inner = f"{card.folder}/" if card.folder else ""
    wanted = [*card.archives, *(f"{inner}{folder or '.'}/" for folder in _folders(card))]
    looked = "; ".join(map(str, places))
    if not places:
        searched = ", ".join(map(str, _settings_files()))
        looked = f"no place: --root is not given, ${VARIABLE} is not set, and [data] is in none of {searched}"
    source = f"; the dataset is at {card.sources[0]}" if card.sources else ""
    return f"{card.name} not found: looked for {', '.join(wanted)} in {looked}; give --root DIR{source}"


def missing_folder(card: DatasetCard, root: Root, split: SplitCard, folder: str) -> DataError:
    """The error for a dataset that lacks one of its folders, e.g. Cityscapes without gtFine."""
    there = ", ".join(source.where("").rstrip(": ") for source in root.sources)
    archives = f", or one of {', '.join(card.archives)} with it" if card.archives else ""
    other = split.labels if folder == split.images else split.images
    return DataError(
        f"{card.name} at {root.place}: the folder {folder or '.'}/, which belongs to {other or '.'}/, is missing in "
        f"{there}; add that folder{archives}"
    )
