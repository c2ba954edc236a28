"""Which image files are meant by paths, folders and patterns, and what each one's results are called. No torch."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from pathlib import Path

from luma_cli.errors import UsageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
OVERLAY, RAW, LEGEND = "_overlay", "_raw", "legend"


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, and its name among the results: relative, without suffix, one that no other picture has."""

    path: Path
    name: str

    @property
    def overlay_suffix(self) -> str:
        """JPEG for JPEG, PNG for all else: an overlay is no better than the photograph that it lies on."""
        return ".jpg" if self.path.suffix.lower() in (".jpg", ".jpeg") else ".png"

    def files(self, out: Path) -> tuple[Path, Path, Path]:
        """Label map, overlay and label values in the folder `out`, whether they are written or not."""
        return (
            out / f"{self.name}.png",
            out / f"{self.name}{OVERLAY}{self.overlay_suffix}",
            out / f"{self.name}{RAW}.png",
        )


def find_pictures(given: Sequence[str], out: Path, recursive: bool = False) -> list[Picture]:
    """The image files that paths, folders and patterns mean, each once, in the order given and by name within a folder.

    A folder's pictures keep their place below it. Two that would be called the same take their suffix into the name,
    `a.jpg` beside `a.png`, and a number where that is not enough. What lies in `out` is no input of a folder above it.
    Raises UsageError for what is not there and for a folder or pattern without pictures, naming what was looked for.
    """
    found: dict[Path, str] = {}
    for text in given:
        for path, below in _meant(text, out, recursive):
            found.setdefault(path, below)
    names = _distinct(list(found.items()), out)
    return [Picture(path, name) for path, name in zip(found, names, strict=True)]


def demand_free(
    pictures: Sequence[Picture], out: Path, overwrite: bool = False, *, overlay: bool = True, raw: bool = True
) -> None:
    """Raise UsageError when a result would replace an input, or another file unless `overwrite`."""
    inputs = {_identity(picture.path) for picture in pictures}
    results = (compress(picture.files(out), (True, overlay, raw)) for picture in pictures)
    targets = [*chain.from_iterable(results), *legend_files(out)]
    for target in targets:
        if not os.path.lexists(target):
            continue
        if target.exists() and _identity(target) in inputs:
            raise UsageError(f"{target} is an input and would be overwritten; name another folder with --out")
        if not overwrite or target.is_dir():
            raise UsageError(f"{target} exists; name another folder with --out, or --force to replace it")


def legend_files(out: Path) -> tuple[Path, Path, Path]:
    """Picture, JSON and CSV of the legend."""
    return out / f"{LEGEND}.png", out / f"{LEGEND}.json", out / f"{LEGEND}.csv"


def _meant(text: str, out: Path, recursive: bool) -> Iterator[tuple[Path, str]]:
    """Files, each with its path below what was named."""
    path = Path(text).expanduser()
    if path.is_file():
        yield path, path.name
    elif path.is_dir():
        yield from _within(path, out, recursive)
    else:
        yield from _matching(text)


def _within(folder: Path, out: Path, recursive: bool) -> list[tuple[Path, str]]:
    inside = folder.rglob("*") if recursive else folder.iterdir()
    excluded = out.resolve() if out.resolve() != folder.resolve() else None
    files = sorted(
        path
        for path in inside
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (excluded is None or excluded not in path.resolve().parents)
    )
    if not files:
        below = "" if recursive else "; --recursive looks into the folders below it"
        raise UsageError(f"{folder} has no {', '.join(sorted(SUFFIXES))} file{below}")
    return [(path, path.relative_to(folder).as_posix()) for path in files]


def _matching(text: str) -> list[tuple[Path, str]]:
    """Files of a pattern that the shell left alone."""
    if not glob.has_magic(text):
        raise UsageError(f"{text} does not exist; expected an image file, a folder or a pattern such as 'photos/*.jpg'")
    matches = [Path(match) for match in sorted(glob.glob(os.path.expanduser(text), recursive=True))]
    files = [(path, path.name) for path in matches if path.is_file() and path.suffix.lower() in SUFFIXES]
    if not files:
        raise UsageError(f"no {', '.join(sorted(SUFFIXES))} file matches {text!r} (seen from {Path.cwd()})")
    return files


def _distinct(found: Sequence[tuple[Path, str]], out: Path) -> list[str]:
    """A name for each, so that no two results and no legend share a file, whatever the case of letters."""
    stems = Counter(_stem(below).casefold() for _, below in found)
    taken = {str(file).casefold() for file in legend_files(out)}
    names = []
    for path, below in found:
        wanted = _stem(below) if stems[_stem(below).casefold()] == 1 else below
        name = next(each for each in _candidates(wanted, below) if not _files(path, each, out) & taken)
        taken |= _files(path, name, out)
        names.append(name)
    return names


def _candidates(wanted: str, below: str) -> Iterator[str]:
    yield wanted
    yield below
    number = 2
    while True:
        yield f"{below}-{number}"
        number += 1


def _files(path: Path, name: str, out: Path) -> set[str]:
    return {str(file).casefold() for file in Picture(path, name).files(out)}


def _stem(below: str) -> str:
    return below[: -len(Path(below).suffix)] if Path(below).suffix else below


def _identity(path: Path) -> tuple[int, int]:
    """The same for two names of one file: links and other spellings."""
    status = path.stat()
    return status.st_dev, status.st_ino
