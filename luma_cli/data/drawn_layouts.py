"""The files of a drawn dataset, named, encoded and archived as those of the official one. No torch.

Layouts: http://data.csail.mit.edu/places/ADEchallenge/ and https://www.cityscapes-dataset.com/file-exchange/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from luma_cli.data import scenes
from luma_cli.seeds import seed_of

_TRAIN, _VAL = range(2)
# Width to height, of which a third is upright, as ADE20K's vary.
_SHAPES = (4 / 3, 3 / 2, 1.0, 16 / 9, 3 / 4, 2 / 3)
_GREY_CHANCE = 0.05
_JPEG_QUALITY = 90
_FIRST_THING = 24  # Cityscapes numbers the instances of labelIds from 24 on
_CITIES = MappingProxyType({_TRAIN: ("aachen", "bochum", "weimar"), _VAL: ("frankfurt", "lindau")})


@dataclass(frozen=True, slots=True)
class File:
    """A file: the archive it comes in, its path there, its content."""

    archive: str
    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """How a dataset is drawn: its title, the usual shorter side in pixels, the files of one picture.

    files(split, index, seed, short_side) yields those of picture `index` of split 0 (training) or 1 (validation).
    """

    title: str
    short_side: int
    files: Callable[[int, int, int, int], Iterator[File]]


def _ade20k(split: int, index: int, seed: int, short_side: int) -> Iterator[File]:
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
    for kind, data in (("images", _jpeg(picture)), ("annotations", _png(canvas.values))):
        suffix = "jpg" if kind == "images" else "png"
        yield File("ADEChallengeData2016.zip", f"ADEChallengeData2016/{kind}/{name}.{suffix}", data)


def _cityscapes(split: int, index: int, seed: int, short_side: int) -> Iterator[File]:
    rng = np.random.default_rng(seed_of(seed, split, index))
    canvas = scenes.street(short_side, 2 * short_side, rng)
    cities = _CITIES[split]
    city = cities[index % len(cities)]
    name = f"{('train', 'val')[split]}/{city}/{city}_{index // len(cities):06d}_000019"
    yield File("leftImg8bit_trainvaltest.zip", f"leftImg8bit/{name}_leftImg8bit.png", _png(canvas.finished()))
    things = canvas.values.astype(np.uint16)
    things[things >= _FIRST_THING] *= 1000
    # The official archive holds other label files beside those that count; a reader must tell them apart.
    for kind, values in (("instanceIds", things), ("labelIds", canvas.values)):
        yield File("gtFine_trainvaltest.zip", f"gtFine/{name}_gtFine_{kind}.png", _png(values))


def _png(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _jpeg(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


LAYOUTS = MappingProxyType(
    {"ade20k": Layout("ADE20K", 192, _ade20k), "cityscapes": Layout("Cityscapes", 160, _cityscapes)}
)
