"""Segments of label maps: which classes an image holds, and their masks at points, never as whole masks.

B images, H W pixels, C classes, S segments of an image, M masks, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luma_cli.data.label_table import IGNORED
from luma_cli.errors import DataError

_NUM_VALUES = 256
_CORNERS = 4


def present(labels: Tensor) -> Tensor:
    """Label maps uint8 [B, H, W] -> which values each holds, boolean [B, 256], on their device."""
    found = torch.zeros(len(labels), _NUM_VALUES, dtype=torch.bool, device=labels.device)
    return found.scatter_(1, labels.flatten(1).long(), True)


def segments(labels: Tensor, num_classes: int, samples: Sequence[int]) -> list[NDArray[np.int64]]:
    """The classes of each of B label maps, ascending. Waits for the device once.

    Raises DataError for a value that is neither a class nor 255, naming the sample.
    """
    held = present(labels).cpu().numpy()
    for sample, values in zip(samples, held, strict=True):
        if strange := np.flatnonzero(values[num_classes:IGNORED]).tolist():
            raise DataError(
                f"sample {sample} has label {num_classes + strange[0]}, expected 0 to {num_classes - 1} or {IGNORED}; "
                "look with luma data check"
            )
    return [np.flatnonzero(values[:num_classes]) for values in held]


class Neighbours(NamedTuple):
    """The 4 pixels around points: labels uint8 [..., P, 4] and bilinear weights float32 [..., P, 4]."""

    labels: Tensor
    weights: Tensor

    def masks(self, classes: Tensor) -> Tensor:
        """Values in [0, 1] of the masks of `classes`, which broadcasts against [..., P, 4] -> float32 [..., P]."""
        return torch.where(self.labels == classes, self.weights, 0).sum(-1)


class PackedLabels:
    """Label maps [B, H, W] from which the four pixels around a point are read at once.

    Entry (y, x) of `packed`, int32 [B, H + 1, W + 1], holds the labels of the pixels (y - 1, x - 1), (y - 1, x),
    (y, x - 1) and (y, x) as its bytes. Outside the image there is no class, as `grid_sample` pads with zeros.
    """

    def __init__(self, labels: Tensor) -> None:
        padded = torch.nn.functional.pad(labels, (1, 1, 1, 1), value=IGNORED)
        corners = (padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:])
        self.packed = torch.stack(corners, dim=-1).view(torch.int32).squeeze(-1)
        self.size = (labels.shape[1], labels.shape[2])

    def around(self, grid: Tensor, images: Tensor) -> Neighbours:
        """What lies around points [N, P, 2] (x, y) of `grid_sample`'s range [-1, 1], row n in image images[n]."""
        height, width = self.size
        column, right = _split(grid[..., 0], width)
        row, below = _split(grid[..., 1], height)
        index = (images[:, None] * (height + 1) + row) * (width + 1) + column
        labels = self.packed.view(-1).take(index).unsqueeze(-1).view(torch.uint8)
        left, above = 1 - right, 1 - below
        return Neighbours(labels, torch.stack((above * left, above * right, below * left, below * right), dim=-1))


def _split(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A coordinate of `grid_sample` -> the pixel after it in the padded map, and its share; align_corners=False."""
    position = ((coordinate + 1) * size - 1) / 2
    before = position.floor()
    return before.long() + 1, position - before
