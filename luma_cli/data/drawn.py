"""A small drawn dataset, its files named, encoded and archived as those of the official one, to try with. No torch.

Layouts: http://data.csail.mit.edu/places/ADEchallenge/ and https://www.cityscapes-dataset.com/file-exchange/.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luma_cli.data import scenes
from luma_cli.errors import UnknownName, UsageError
from luma_cli.files import honour_umask
from luma_cli.seeds import seed_of

_TRAIN, _VAL = range(2)
# Width to height, of which a third is upright, as ADE20K's vary.
_SHAPES = (4 / 3, 3 / 2, 1.0, 16 / 9, 3 / 4, 2 / 3)
_GREY_CHANCE = 0.05
_JPEG_QUALITY = 90
_FIRST_THING = 24  # Cityscapes numbers the instances of labelIds from 24 on
_CITIES = MappingProxyType({_TRAIN: ("aachen", "bochum", "weimar"), _VAL: ("frankfurt", "lindau")})


_File = tuple[str, str, bytes]  # the archive it comes in, empty for none, its path there, its content
_Painted = Callable[[int, int, int, int], Iterator[_File]]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataset is drawn: its title, the usual shorter side in pixels, the files of one picture.

    files(split, index, seed, short_side) yields those of picture `index` of split 0 (training) or 1 (validation).
    """

    title: str
    short_side: int
    files: _Painted


def _ade20k(split: int, index: int, seed: int, short_side: int) -> Iterator[_File]:
    rng = np.random.default_rng(seed_of(seed, split, index))
    side = round(short_side * rng.uniform(0.85, 1.25))
    shape = _SHAPES[int(rng.integers(len(_SHAPES)))]
    height, width = (side, round(side * shape)) if shape >= 1 else (round(side / shape), side)
    canvas = scenes.landscape(height, width, rng)
    picture = Image.fromarray(canvas.finished())
    if rng.random() < _GREY_CHANCE:
        picture = picture.convert("L")
    folder, short = (("training", "train"), ("validation", "val"))[split]
    name = f"{folder}/ADE_{short}_{index + 1:08d}"
    top = "ADEChallengeData2016"
    yield f"{top}.zip", f"{top}/images/{name}.jpg", _encoded(picture, "JPEG", quality=_JPEG_QUALITY)
    yield f"{top}.zip", f"{top}/annotations/{name}.png", _png(canvas.values)


def _cityscapes(split: int, index: int, seed: int, short_side: int) -> Iterator[_File]:
    rng = np.random.default_rng(seed_of(seed, split, index))
    canvas = scenes.street(short_side, 2 * short_side, rng)
    cities = _CITIES[split]
    city = cities[index % len(cities)]
    name = f"{('train', 'val')[split]}/{city}/{city}_{index // len(cities):06d}_000019"
    yield "leftImg8bit_trainvaltest.zip", f"leftImg8bit/{name}_leftImg8bit.png", _png(canvas.finished())
    things = canvas.values.astype(np.uint16)
    things[things >= _FIRST_THING] *= 1000
    # The official archive holds other label files beside those that count; a reader must tell them apart.
    for kind, values in (("instanceIds", things), ("labelIds", canvas.values)):
        yield "gtFine_trainvaltest.zip", f"gtFine/{name}_gtFine_{kind}.png", _png(values)


def _unknown_objects(painter: Callable[[int, int, np.random.Generator], scenes.Canvas], number: int) -> _Painted:
    """Files of picture `number` of an anomaly set, laid out as SegmentMeIfYouCan's: 0 known, 1 unknown, 255 void."""

    def files(split: int, index: int, seed: int, short_side: int) -> Iterator[_File]:
        rng = np.random.default_rng(seed_of(seed, number + split, index))
        canvas = painter(short_side, 2 * short_side, rng)
        known = canvas.values.copy()
        canvas.values[:] = 0
        for _ in range(int(rng.integers(1, 4))):
            scenes.stranger(canvas, 1, canvas.bottom - rng.uniform(0.08, 0.35), rng.uniform(0.15, canvas.right - 0.15))
        mask = np.where((canvas.values == 0) & np.isin(known, _NOT_CLASSES), np.uint8(255), canvas.values)
        name = f"validation{index:04d}"
        yield "", f"images/{name}.jpg", _encoded(Image.fromarray(canvas.finished()), "JPEG", quality=_JPEG_QUALITY)
        yield "", f"labels_masks/{name}_labels_semantic.png", _png(mask)

    return files


_NOT_CLASSES = (scenes.OTHER, scenes.EGO_VEHICLE, scenes.OUT_OF_ROI, scenes.STATIC)


def _png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    return _encoded(Image.fromarray(pixels), "PNG")


def _encoded(picture: Image.Image, form: str, **options: int) -> bytes:
    file = BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


LAYOUTS = MappingProxyType(
    {"ade20k": Layout("ADE20K", 192, _ade20k), "cityscapes": Layout("Cityscapes", 160, _cityscapes)}
)
# Scenes of the same classes with objects that none of them is: as `data sample --ood` draws them.
STRANGE = MappingProxyType(
    {
        "ade20k": Layout("SegmentMeIfYouCan", 192, _unknown_objects(scenes.landscape, 10)),
        "cityscapes": Layout("SegmentMeIfYouCan", 160, _unknown_objects(scenes.street, 10)),
    }
)


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
    card_name: str,
    folder: Path,
    num_images: int = 64,
    seed: int = 0,
    *,
    short_side: int | None = None,
    unknown: bool = False,
) -> Drawn:
    """Draw `num_images` pictures, a fifth of them (at least one) for validation, into a new `folder`.

    unknown: scenes with objects that no class of the dataset is, and masks of them, all for validation.

    The same arguments give the same bytes with the same Pillow and NumPy. The folder appears whole or not at all.
    short_side: of the pictures in pixels (192 for ADE20K, whose pictures have 0.85 to 1.25 of it, 160 for Cityscapes).

    Raises UnknownName for a dataset that cannot be drawn; UsageError for fewer than 2 pictures, sides under 32 pixels
    or a folder that holds something already.
    """
    if card_name not in LAYOUTS:
        raise UnknownName(f"dataset {card_name!r} cannot be drawn; choose {' or '.join(LAYOUTS)}")
    layout = (STRANGE if unknown else LAYOUTS)[card_name]
    side = layout.short_side if short_side is None else short_side
    if num_images < 2 and not unknown:
        raise UsageError(f"{num_images} pictures, expected at least 2: one to train on and one to validate on")
    if side < _MIN_SIDE:
        raise UsageError(f"pictures of {side} pixels, expected at least {_MIN_SIDE}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} holds something already; name a new folder")
    num_val = num_images if unknown else max(1, num_images // _VAL_SHARE)
    splits = (num_images - num_val, num_val)
    files = (
        file for split in (0, 1) for index in range(splits[split]) for file in layout.files(split, index, seed, side)
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write(unfinished, files)
        (unfinished / MARKER).write_text(_TEXT.format(title=layout.title, number=num_images), encoding="utf-8")
        honour_umask(unfinished)
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return Drawn(folder, tuple(sorted(folder.glob("*.zip"))), *splits)


def _write(folder: Path, files: Iterable[_File]) -> None:
    """Write every file as it is, and into its archive after an entry for each folder, as the official ones have."""
    archives: dict[str, ZipFile] = {}
    made: set[tuple[str, str]] = set()
    with ExitStack() as stack:
        for archive, path, data in files:
            if archive and archive not in archives:
                archives[archive] = stack.enter_context(ZipFile(folder / archive, "w"))
            for outer in reversed(PurePosixPath(path).parents[:-1]) if archive else ():
                if (archive, f"{outer}/") not in made:
                    made.add((archive, f"{outer}/"))
                    archives[archive].writestr(ZipInfo(f"{outer}/", _TIME), b"")
            if archive:
                archives[archive].writestr(ZipInfo(path, _TIME), data)
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
