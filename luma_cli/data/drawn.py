"""A small drawn dataset in the layout of an official one, as folders and as archives, to try things with. No torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile, ZipInfo

from luma_cli.data.drawn_layouts import LAYOUTS, File, Layout
from luma_cli.errors import UnknownName, UsageError

MARKER = "README.txt"
_VAL_SHARE = 5
_MIN_SIDE = 32
_TIME = (1980, 1, 1, 0, 0, 0)  # of every archived file: equal data gives equal archives
_TEXT = """This is not {title}: luma drew these {number} pictures by rule, to try things with. They show nothing real.
Only the layout, the names of the files and the values of the labels are those of {title}.
"""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was written: the archives in `folder`, which holds the same files unpacked too, and the sizes of splits."""

    folder: Path
    archives: tuple[Path, ...]
    num_train: int
    num_val: int


def write_sample(
    card_name: str, folder: Path, num_images: int = 64, seed: int = 0, *, short_side: int | None = None
) -> Drawn:
    """Draw `num_images` pictures, a fifth of them (at least one) for validation, into a new `folder`.

    The same arguments give the same bytes with the same Pillow and NumPy. The folder appears whole or not at all.
    short_side: of the pictures in pixels (192 for ADE20K, whose pictures have 0.85 to 1.25 of it, 160 for Cityscapes).

    Raises UnknownName for a dataset that cannot be drawn; UsageError for fewer than 2 pictures, sides under 32 pixels
    or a folder that holds something already.
    """
    layout = _checked(card_name, folder, num_images, short_side)
    side = layout.short_side if short_side is None else short_side
    num_val = max(1, num_images // _VAL_SHARE)
    splits = (num_images - num_val, num_val)
    files = (
        file for split in (0, 1) for index in range(splits[split]) for file in layout.files(split, index, seed, side)
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write(unfinished, files)
        (unfinished / MARKER).write_text(_TEXT.format(title=layout.title, number=num_images), encoding="utf-8")
        unfinished.chmod(0o755)  # mkdtemp makes it private
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return Drawn(folder, tuple(sorted(folder.glob("*.zip"))), *splits)


def _checked(card_name: str, folder: Path, num_images: int, short_side: int | None) -> Layout:
    if card_name not in LAYOUTS:
        raise UnknownName(f"dataset {card_name!r} cannot be drawn; choose {' or '.join(LAYOUTS)}")
    if num_images < 2:
        raise UsageError(f"{num_images} pictures, expected at least 2: one to train on and one to validate on")
    if short_side is not None and short_side < _MIN_SIDE:
        raise UsageError(f"pictures of {short_side} pixels, expected at least {_MIN_SIDE}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} holds something already; name a new folder")
    return LAYOUTS[card_name]


def _write(folder: Path, files: Iterable[File]) -> None:
    """Write every file as it is, and into its archive after an entry for each folder, as the official ones have."""
    archives: dict[str, ZipFile] = {}
    made: set[tuple[str, str]] = set()
    with ExitStack() as stack:
        for file in files:
            if file.archive not in archives:
                archives[file.archive] = stack.enter_context(ZipFile(folder / file.archive, "w"))
            for name in _folders(file.path):
                if (file.archive, name) not in made:
                    made.add((file.archive, name))
                    archives[file.archive].writestr(ZipInfo(name, _TIME), b"")
            archives[file.archive].writestr(ZipInfo(file.path, _TIME), file.data)
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.data)


def _folders(path: str) -> Iterator[str]:
    """`a/b/c.png` -> `a/`, `a/b/`."""
    parts = path.split("/")[:-1]
    yield from ("/".join(parts[: depth + 1]) + "/" for depth in range(len(parts)))
