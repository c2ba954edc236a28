"""Boundary IoU of label maps (arXiv 2103.16562): intersection over union of the bands along the insides of outlines.

No torch. The band of a class holds its pixels within d of one that is not of the class, or of the image's outside; d is
2% of the image's diagonal. The official code (https://github.com/bowenc0221/boundary-iou-api) erodes the mask of each
class d times by 3 x 3. Classes do not overlap here, so that one look at the neighbourhood of a pixel serves them all:
it lies in the band of its own class where the square of side 2 d + 1 around it holds more than one value.

Ignored pixels count nowhere, and what lies behind them is unknown: they make no outline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from luma_cli.catalogue.datasets import IGNORED, Labels

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
    """Counts of two label maps [H, W] of which `truth` may hold IGNORED; `ratio`: width over the diagonal."""
    ignored = truth == IGNORED
    distance = max(1, round(ratio * math.hypot(*truth.shape)))
    truth_band = _band(truth, ignored, distance)
    predicted_band = _band(predicted, ignored, distance)
    both = truth_band & predicted_band & (truth == predicted)
    intersection = _count(truth[both], num_classes)
    union = _count(truth[truth_band], num_classes) + _count(predicted[predicted_band], num_classes) - intersection
    return BoundaryCounts(intersection, union)


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


def _count(values: Labels, num_classes: int) -> NDArray[np.int64]:
    return np.bincount(values, minlength=num_classes).astype(np.int64)
