"""What checking counts in some samples: label values, and every file that cannot be used. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from luma_cli.data.decode import decode_image, is_rotated
from luma_cli.data.split import Split, foreign_text
from luma_cli.errors import BadSample

_NUM_VALUES = 256


def _zeros() -> NDArray[np.int64]:
    return np.zeros(_NUM_VALUES, dtype=np.int64)


@dataclass(slots=True)
class Tally:
    """Counts over samples.

    pixels [256]: pixels of each label value; images [256]: label files with each class index. problems: (index, text).
    ignored: indices of samples in which no pixel counts. rotated: indices of images with an EXIF rotation.
    """

    num_samples: int = 0
    pixels: NDArray[np.int64] = field(default_factory=_zeros)
    images: NDArray[np.int64] = field(default_factory=_zeros)
    problems: list[tuple[int, str]] = field(default_factory=list)
    ignored: list[int] = field(default_factory=list)
    rotated: list[int] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in the counts of other samples; the order of additions does not matter."""
        self.num_samples += other.num_samples
        self.pixels += other.pixels
        self.images += other.images
        self.problems = sorted(self.problems + other.problems)
        self.ignored = sorted(self.ignored + other.ignored)
        self.rotated = sorted(self.rotated + other.rotated)


def tally(split: Split, indices: range) -> Tally:
    """Read, decode and count the samples `indices`."""
    found = Tally()
    for index in indices:
        found.num_samples += 1
        _count_image(split, index, found)
        _count_labels(split, index, found)
    return found


def _count_image(split: Split, index: int, found: Tally) -> None:
    try:
        data = split.image_files.read(split.pairs[index].image)
        decode_image(data, split.image_path(index))
    except BadSample as error:
        found.problems.append((index, str(error)))
        return
    if is_rotated(data):
        found.rotated.append(index)


def _count_labels(split: Split, index: int, found: Tally) -> None:
    try:
        values = split.values(index)
    except BadSample as error:
        # A file that is bad as an image is named once, though the size of its labels cannot be compared either.
        if (index, str(error)) not in found.problems:
            found.problems.append((index, str(error)))
        return
    pixels = np.bincount(values.reshape(-1), minlength=_NUM_VALUES)
    found.pixels += pixels
    found.images[np.unique(split.table.encode(np.flatnonzero(pixels).astype(np.uint8)))] += 1
    if foreign := split.table.foreign(values):
        share = pixels[list(foreign)].sum() / values.size
        found.problems.append(
            (index, f"{split.labels_path(index)}: {foreign_text(foreign)}, {share:.2%} of the pixels")
        )
    elif not pixels[[value for each in split.table.classes for value in each.values]].any():
        found.ignored.append(index)
