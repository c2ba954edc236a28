"""Images with masks of unknown objects: how published sets and own folders lay them out. No torch.

SegmentMeIfYouCan: `images/NAME.jpg|webp`, `labels_masks/NAME_labels_semantic.png`; images without a mask are its hidden
test. RoadAnomaly (ICCV 2019): `frames/NAME.jpg`, `frames/NAME.labels/labels_semantic.png`, where 2 is unknown and 0 and
1 are not. Fishyscapes Lost and Found: `NNNN_NAME_labels.png` or `NAME_fishy-labels.png` beside Lost and Found's
`NAME_leftImg8bit.png`. Own: `images/NAME.*` and `masks/NAME.png`. Values: 0 known, 1 unknown, 255 void.
https://github.com/SegmentMeIfYouCan/road-anomaly-benchmark, https://fishyscapes.com
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from luma_cli.data.decode import decode_image, decode_labels
from luma_cli.errors import BadSample, DataError, UsageError

KNOWN, UNKNOWN, VOID = 0, 1, 255
_IMAGES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_MASK_FOLDERS = ("labels_masks", "label_masks", "masks", "labels")
_MASK_NAMES = (
    re.compile(r"(?P<key>.+)_labels_semantic"),
    re.compile(r"(?P<key>.+)_fishy-labels"),
    re.compile(r"(?:\d{4}_)?(?P<key>.+)_labels"),
)
_OTHER_FILES = re.compile(r".*(_color|_instance|_instances|labels_instance)")
_IMAGE_ENDING = "_leftImg8bit"


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """An image file and its mask. unknown: the values of the mask file that mean an unknown object."""

    name: str
    image: Path
    mask: Path
    unknown: int


@dataclass(frozen=True, slots=True)
class UnknownObjects:
    """The images of a folder that have masks, by name. num_unlabelled: how many others there are."""

    folder: Path
    pairs: tuple[MaskedImage, ...]
    num_unlabelled: int

    @property
    def identity(self) -> str:
        """The folder's name and a part of the fingerprint of the names and masks, by which scores can be compared."""
        content = hashlib.sha256()
        for pair in self.pairs:
            content.update(f"{pair.name}\0{pair.unknown}\0".encode() + _read(pair.mask))
        return f"{self.folder.resolve().name}#{content.hexdigest()[:8]}"

    def image(self, pair: MaskedImage) -> NDArray[np.uint8]:
        """RGB [H, W, 3] as stored, as its mask is. Raises BadSample, naming the file."""
        return decode_image(_read(pair.image), str(pair.image)).pixels

    def mask(self, pair: MaskedImage, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """uint8 [H, W] of KNOWN, UNKNOWN and VOID. Raises BadSample for another size or another value."""
        found = decode_labels(_read(pair.mask), str(pair.mask))
        if found.shape != tuple(shape[:2]):
            sizes = f"{found.shape[1]} x {found.shape[0]} pixels, but {pair.image} has {shape[1]} x {shape[0]}"
            raise BadSample(f"{pair.mask}: {sizes}")
        if pair.unknown == VOID:  # a binary mask of 0 and 255
            known, void = found == 0, np.zeros_like(found, dtype=np.bool_)
        else:
            known, void = found < pair.unknown, found == VOID
        unknown = found == pair.unknown
        strange = found[~(known | void | unknown)]
        if strange.size:
            raise BadSample(
                f"{pair.mask}: value {int(strange[0])}, expected 0 (known), {pair.unknown} (unknown) or {VOID} (void);"
                f" for another value of the unknown give --ood-value {int(strange[0])}"
            )
        return np.where(unknown, np.uint8(UNKNOWN), np.where(void, np.uint8(VOID), np.uint8(KNOWN)))


def find_unknown(folder: Path, value: int | None = None) -> UnknownObjects:
    """The images and masks in `folder` and below. value: of unknown objects in the masks, by the layout when None.

    Raises UsageError without a folder or for a value out of range, DataError for no mask and for one without an image.
    """
    if not folder.is_dir():
        raise UsageError(f"--ood {folder} is no folder; expected images with masks, e.g. images/ and labels_masks/")
    if value is not None and not 1 <= value <= VOID:
        raise UsageError(f"--ood-value is {value}, expected 1 to {VOID}")
    images: dict[str, list[Path]] = defaultdict(list)
    masks: list[tuple[str, Path, int]] = []
    for file in sorted(each for each in folder.rglob("*") if each.suffix.lower() in _IMAGES and each.is_file()):
        found = _as_mask(file, folder)
        if found is not None:
            masks.append((found[0], file, value or found[1]))
        elif not _OTHER_FILES.fullmatch(file.stem):
            images[file.stem.removesuffix(_IMAGE_ENDING)].append(file)
    if not masks:
        raise DataError(
            f"{folder} has no mask; expected images/NAME.jpg with labels_masks/NAME_labels_semantic.png, "
            "frames/NAME.jpg with NAME.labels/labels_semantic.png, or images/NAME.jpg with masks/NAME.png"
        )
    pairs = [MaskedImage(key, _of(key, file, images), file, unknown) for key, file, unknown in masks]
    unlabelled = sum(map(len, images.values())) - len({pair.image for pair in pairs})
    return UnknownObjects(folder, tuple(pairs), unlabelled)


def _as_mask(file: Path, folder: Path) -> tuple[str, int] | None:
    """The name of the image that a file is a mask of, and the usual value of unknown objects; None for an image."""
    if file.suffix.lower() != ".png":
        return None
    if file.name == "labels_semantic.png" and file.parent.suffix == ".labels":
        return file.parent.stem, 2
    if _OTHER_FILES.fullmatch(file.stem):
        return None
    for pattern in _MASK_NAMES:
        if match := pattern.fullmatch(file.stem):
            return match["key"], UNKNOWN
    inside = file.relative_to(folder).parts[:-1]
    return (file.stem, UNKNOWN) if any(name in _MASK_FOLDERS for name in inside) else None


def _of(key: str, mask: Path, images: dict[str, list[Path]]) -> Path:
    """The image of a mask; of several of that name the one nearest to it."""
    found = images.get(key, [])
    if not found:
        raise DataError(f"{mask}: no image called {key} is in the folder; expected e.g. images/{key}.jpg")
    near = [each for each in found if each.parent in (mask.parent, mask.parent.parent)]
    if len(found) > 1 and len(near) != 1:
        raise DataError(f"{mask}: {len(found)} images are called {key}: {found[0]}, {found[1]}; keep one of them")
    return near[0] if len(near) == 1 else found[0]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadSample(f"{file}: cannot be read: {error.strerror or error}") from error
