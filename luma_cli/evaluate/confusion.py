"""Confusion matrix of label maps, and the scores that follow from it. No torch.

C classes; rows are the truth, columns the prediction. Matrices of whole numbers add up over images, processes and
machines, so that a score does not depend on how the work was divided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from luma_cli.catalogue.datasets import IGNORED, Labels
from luma_cli.errors import BadSample

Absent = Literal["skip", "zero"]
Matrix = NDArray[np.int64]
_NUM_VALUES = 256


def confusion_matrix(truth: Labels, predicted: Labels, num_classes: int) -> Matrix:
    """Pixels [C, C] of two label maps [H, W] of bytes; pixels whose truth is IGNORED count nowhere.

    Raises BadSample for maps of different shapes, and for a class that is none of 0 .. C - 1.
    """
    if truth.shape != predicted.shape:
        raise BadSample(f"a label map of shape {list(truth.shape)} for {list(predicted.shape)} predicted pixels")
    if int(predicted.max(initial=0)) >= num_classes:
        raise BadSample(f"predicted class {predicted.max()}, expected 0 to {num_classes - 1}")
    code = truth.astype(np.uint16)
    code *= num_classes
    code += predicted
    counts = np.bincount(code.reshape(-1), minlength=_NUM_VALUES * num_classes).reshape(_NUM_VALUES, num_classes)
    if strange := np.flatnonzero(counts[num_classes:IGNORED].sum(axis=1)).tolist():
        raise BadSample(f"label {num_classes + strange[0]}, expected 0 to {num_classes - 1}, or {IGNORED} for ignored")
    return counts[:num_classes].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a confusion matrix, in percent; None where there is nothing to divide by.

    iou: TP / (TP + FP + FN) per class. accuracy: TP / (TP + FN) per class. miou: mean of `iou` over the `num_present`
    classes that occur in truth or prediction; macc: mean of `accuracy` over the classes that occur in the truth; aacc:
    share of right pixels. With `absent="zero"` both means are over all classes, an absent one counting 0.
    """

    iou: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    num_present: int
    miou: float | None
    macc: float | None
    aacc: float | None


def scores(matrix: Matrix, absent: Absent = "skip") -> Scores:
    """The scores of a confusion matrix [C, C].

    absent: `zero` reproduces EoMT, which averages torchmetrics' `MulticlassJaccardIndex(average=None)`.

    >>> scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])).miou
    77.5
    >>> scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), "zero").miou == 77.5 * 2 / 3
    True
    """
    right = np.diagonal(matrix)
    truth, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
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
    """The mean of those that are known, or with `zero` of all, the unknown counting 0; None where none is known."""
    found = list(percents)
    known = [value for value in found if value is not None]
    return math.fsum(known) / (len(found) if absent == "zero" else len(known)) if known else None


def _percent(parts: Iterable[int], wholes: Iterable[int]) -> tuple[float | None, ...]:
    return tuple(
        100.0 * int(part) / int(whole) if whole > 0 else None for part, whole in zip(parts, wholes, strict=True)
    )
