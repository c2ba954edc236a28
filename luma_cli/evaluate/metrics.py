"""Confusion matrix and boundary counts of label maps, and the scores that follow from them. No torch.

C classes; rows are the truth, columns the prediction. Whole numbers add up over images and processes, so that a score
does not depend on how the work was divided.

Boundary IoU (arXiv 2103.16562) is the IoU of bands along the insides of outlines, within d of them: 2% of the image's
diagonal. The official code (https://github.com/bowenc0221/boundary-iou-api) erodes the mask of each class d times by
3 x 3. Classes do not overlap here, so one filter serves all: a pixel is in the band of its class where the square of
side 2 d + 1 around it holds more than one value. Ignored pixels count nowhere and make no outline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from luma_cli.catalogue.datasets import IGNORED, Labels
from luma_cli.errors import BadSample
from luma_cli.store.records import ImageScore

Absent = Literal["skip", "zero"]
Matrix = NDArray[np.int64]
_NUM_VALUES = 256


def confusion_matrix(truth: Labels, predicted: Labels, num_classes: int, *, unsaid: bool = False) -> Matrix:
    """Pixels [C, C] of two label maps [H, W] of bytes; pixels whose truth is IGNORED count nowhere.

    unsaid: a last column more, of pixels that `predicted` gives no class (IGNORED); without, those are refused.
    Raises BadSample for maps of different shapes, and for a class that is none of 0 .. C - 1.
    """
    columns = num_classes + unsaid
    if unsaid:
        predicted = np.where(predicted == IGNORED, np.uint8(num_classes), predicted)
    if truth.shape != predicted.shape:
        raise BadSample(f"a label map of shape {list(truth.shape)} for {list(predicted.shape)} predicted pixels")
    if int(predicted.max(initial=0)) >= columns:
        raise BadSample(f"predicted class {predicted.max()}, expected 0 to {num_classes - 1}")
    code = truth.astype(np.uint16)
    code *= columns
    code += predicted
    counts = np.bincount(code.reshape(-1), minlength=_NUM_VALUES * columns).reshape(_NUM_VALUES, columns)
    if strange := np.flatnonzero(counts[num_classes:IGNORED].sum(axis=1)).tolist():
        raise BadSample(f"label {num_classes + strange[0]}, expected 0 to {num_classes - 1}, or {IGNORED} for ignored")
    return counts[:num_classes].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a confusion matrix, in percent; None where a denominator is 0.

    iou: TP / (TP + FP + FN) per class. accuracy: TP / (TP + FN) per class. miou: mean of `iou` over the `num_present`
    classes in truth or prediction; macc: mean of `accuracy` over those in the truth; aacc: share of right pixels. With
    `absent="zero"` absent classes count 0 in both means.
    """

    iou: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    num_present: int
    miou: float | None
    macc: float | None
    aacc: float | None


def scores(matrix: Matrix, absent: Absent = "skip") -> Scores:
    """The scores of a confusion matrix [C, C], or [C, C + 1] with a column of pixels without prediction.

    absent: `zero` reproduces EoMT, which averages torchmetrics' `MulticlassJaccardIndex(average=None)`.

    >>> scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).miou
    77.5
    >>> scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), "zero").miou == 77.5 * 2 / 3
    True
    """
    right = np.diagonal(matrix)
    truth, predicted = matrix.sum(axis=1), matrix.sum(axis=0)[: len(matrix)]
    iou = _percent(right, truth + predicted - right)
    accuracy = _percent(right, truth)
    return Scores(
        iou=iou,
        accuracy=accuracy,
        num_present=sum(value is not None for value in iou),
        miou=mean(iou, absent),
        macc=mean(accuracy, absent),
        aacc=_percent([right.sum()], [matrix.sum()])[0],
    )


def mean(percents: Iterable[float | None], absent: Absent = "skip") -> float | None:
    """The mean of the known ones; with `zero` of all, None counting 0. None where none is known."""
    found = list(percents)
    known = [value for value in found if value is not None]
    return math.fsum(known) / (len(found) if absent == "zero" else len(known)) if known else None


def _percent(parts: Iterable[int], wholes: Iterable[int]) -> tuple[float | None, ...]:
    return tuple(
        100.0 * int(part) / int(whole) if whole > 0 else None for part, whole in zip(parts, wholes, strict=True)
    )


BOUNDARY_RATIO = 0.02  # section 4 of the paper, chosen there to match how annotators disagree


@dataclass(frozen=True, slots=True)
class BoundaryCounts:
    """Pixels per class [C] in both bands, and in at least one; they add up over images."""

    intersection: NDArray[np.int64]
    union: NDArray[np.int64]

    def __add__(self, other: BoundaryCounts) -> BoundaryCounts:
        return BoundaryCounts(self.intersection + other.intersection, self.union + other.union)


def boundary_counts(
    truth: Labels, predicted: Labels, num_classes: int, ratio: float = BOUNDARY_RATIO
) -> BoundaryCounts:
    """Counts of two label maps [H, W], either of which may hold IGNORED; `ratio`: width over the diagonal."""
    ignored = truth == IGNORED
    distance = max(1, round(ratio * math.hypot(*truth.shape)))
    truth_band, predicted_band = (_band(labels, ignored, distance) for labels in (truth, predicted))
    both = truth_band & predicted_band & (truth == predicted)
    in_both, in_truth, in_prediction = (
        np.bincount(values, minlength=num_classes)[:num_classes].astype(np.int64)
        for values in (truth[both], truth[truth_band], predicted[predicted_band])
    )
    return BoundaryCounts(in_both, in_truth + in_prediction - in_both)


def _band(labels: Labels, ignored: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Pixels [H, W] in the band of their own class."""
    size = 2 * distance + 1
    lowest = minimum_filter(np.where(ignored, np.uint8(IGNORED), labels), size, mode="nearest")
    highest = maximum_filter(np.where(ignored, np.uint8(0), labels), size, mode="nearest")
    band: NDArray[np.bool_] = lowest < highest
    inner = tuple(slice(distance, max(distance, length - distance)) for length in labels.shape)
    outer = np.ones_like(band)
    outer[inner] = False
    return (band | outer) & ~ignored


@dataclass(frozen=True, slots=True)
class Counts:
    """Pixels [C, C] (truth, prediction), boundary pixels where requested, and each image's score.

    confusion: with one column more where pixels may have no prediction. images: (index in the split, score), by index.
    skipped: (index, reason) of images that could not be read.
    """

    confusion: Matrix
    boundary: BoundaryCounts | None
    images: tuple[tuple[int, ImageScore], ...]
    skipped: tuple[tuple[int, str], ...]

    @property
    def num_windows(self) -> int:
        """Forward passes of one window, over all images."""
        return sum(score.num_windows for _, score in self.images)


class RunningCounts:
    """A running sum of counts of single images, in any order."""

    def __init__(self, num_classes: int, *, unsaid: bool = False) -> None:
        self._confusion = np.zeros((num_classes, num_classes + unsaid), np.int64)
        self._boundary: BoundaryCounts | None = None
        self._images: list[tuple[int, ImageScore]] = []
        self.skipped: list[tuple[int, str]] = []  # (index, reason), in the order in which they came

    def add(self, part: Counts) -> None:
        """Take the counts of other images in."""
        self._confusion += part.confusion
        if part.boundary is not None:
            self._boundary = part.boundary if self._boundary is None else self._boundary + part.boundary
        self._images += part.images
        self.skipped += part.skipped

    @property
    def num_done(self) -> int:
        """Images that were counted or skipped."""
        return len(self._images) + len(self.skipped)

    def total(self) -> Counts:
        """The sum so far, images in the order of the split."""
        images = sorted(self._images, key=lambda image: image[0])
        return Counts(self._confusion.copy(), self._boundary, tuple(images), tuple(sorted(self.skipped)))


def merge(parts: Sequence[Counts]) -> Counts:
    """The counts of all images of the parts, whatever their order. Raises ValueError for no part."""
    if not parts:
        raise ValueError("no counts to merge, expected at least those of one process")
    tally = RunningCounts(len(parts[0].confusion))
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
