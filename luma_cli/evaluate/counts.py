"""What an evaluation counts: whole numbers that add up over images and processes. C classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from luma_cli.evaluate.boundary import BoundaryCounts
from luma_cli.evaluate.confusion import Matrix
from luma_cli.store.run_records import ImageScore


@dataclass(frozen=True, slots=True)
class Counts:
    """Pixels [C, C] (truth, prediction), boundary pixels where they were asked for, and what each image scored.

    images: (index in the split, score), by index. skipped: (index, why) of images that could not be read. num_windows:
    forward passes of one window, over all images.
    """

    confusion: Matrix
    boundary: BoundaryCounts | None
    images: tuple[tuple[int, ImageScore], ...]
    skipped: tuple[tuple[int, str], ...]

    @property
    def num_windows(self) -> int:
        """Windows that went through the model."""
        return sum(score.num_windows for _, score in self.images)


class Tally:
    """A running sum of counts of single images, in any order."""

    def __init__(self, num_classes: int) -> None:
        self._confusion = np.zeros((num_classes, num_classes), np.int64)
        self._boundary: BoundaryCounts | None = None
        self._images: list[tuple[int, ImageScore]] = []
        self._skipped: list[tuple[int, str]] = []

    def add(self, part: Counts) -> None:
        """Take the counts of other images in."""
        self._confusion += part.confusion
        if part.boundary is not None:
            self._boundary = part.boundary if self._boundary is None else self._boundary + part.boundary
        self._images += part.images
        self._skipped += part.skipped

    def skip(self, index: int, reason: str) -> None:
        """Note that image `index` could not be read."""
        self._skipped.append((index, reason))

    @property
    def skipped(self) -> list[tuple[int, str]]:
        """(index, why) of the images that could not be read, in the order in which they came."""
        return self._skipped

    @property
    def num_done(self) -> int:
        """Images that were counted or skipped."""
        return len(self._images) + len(self._skipped)

    def total(self) -> Counts:
        """The sum so far, images in the order of the split."""
        images = sorted(self._images, key=lambda image: image[0])
        return Counts(self._confusion.copy(), self._boundary, tuple(images), tuple(sorted(self._skipped)))


def merge(parts: Sequence[Counts]) -> Counts:
    """The counts of all images of the parts, whatever their order. Raises ValueError for no part."""
    if not parts:
        raise ValueError("no counts to merge, expected at least those of one process")
    tally = Tally(len(parts[0].confusion))
    for part in parts:
        tally.add(part)
    return tally.total()


def merge_over_processes(counts: Counts) -> Counts:
    """The counts of all processes of torch.distributed, the same on each; `counts` itself where there is one process.

    Every process has to call it.
    """
    from torch import distributed

    if not distributed.is_available() or not distributed.is_initialized():
        return counts
    parts: list[Counts | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, counts)
    return merge(cast(list[Counts], parts))
