"""Segments of label maps: which classes an image holds, and their masks at points, never as whole masks.

B images, H W pixels, C classes, M masks, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from luma_cli.catalogue.datasets import IGNORED
from luma_cli.errors import DataError
from luma_cli.train.bilinear import split

_NUM_VALUES = 256
_EVERY_BYTE = 0x01010101
_BYTES = (0xFF, 0xFF00, 0xFF0000, -0x1000000)  # of an int32, lowest first


def present(labels: Tensor) -> Tensor:
    """Label maps uint8 [B, H, W] -> which values each holds, boolean [B, 256], on their device.

    Counting takes a fifth of the time of scattering on the CPU, and would wait for every image on a GPU.
    """
    if labels.device.type == "cpu":
        return torch.stack([torch.bincount(each.flatten(), minlength=_NUM_VALUES) for each in labels]) > 0
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
    """The 4 pixels around points: labels as the bytes of an int32 [..., P], shares of the right and the lower two."""

    labels: Tensor
    right: Tensor
    below: Tensor

    def unsqueeze(self) -> Neighbours:
        """The same for every one of an image's segments: [B, P] -> [B, 1, P]."""
        return Neighbours(self.labels[:, None], self.right[:, None], self.below[:, None])

    def masks(self, classes: Tensor) -> Tensor:
        """Values in [0, 1] of the masks of `classes`, int64 that broadcast against [..., P] -> float32 [..., P]."""
        differs = self.labels ^ (classes * _EVERY_BYTE).int()
        upper_left, upper_right, lower_left, lower_right = (_is_zero(differs & byte) for byte in _BYTES)
        upper = torch.lerp(upper_left, upper_right, self.right)
        return torch.lerp(upper, torch.lerp(lower_left, lower_right, self.right), self.below)


def _is_zero(values: Tensor) -> Tensor:
    """1.0 where an integer is 0, else 0.0; written at once, as converting booleans takes five times as long."""
    return torch.eq(values, 0, out=torch.empty(values.shape, device=values.device))


class PackedLabels:
    """Label maps [B, H, W] from which the four pixels around a point are read at once.

    Entry (y, x) of `packed`, int32 [B, H + 1, W + 1], holds the labels of the pixels (y - 1, x - 1), (y - 1, x),
    (y, x - 1) and (y, x) as its bytes. Outside the image there is no class, as `grid_sample` pads with zeros.
    """

    def __init__(self, labels: Tensor) -> None:
        padded = pad(labels, (1, 1, 1, 1), value=IGNORED)
        corners = (padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:])
        self.packed = torch.stack(corners, dim=-1).view(torch.int32).squeeze(-1)
        self.size = (labels.shape[1], labels.shape[2])

    def around(self, grid: Tensor, images: Tensor) -> Neighbours:
        """What lies around points [M, P, 2] (x, y) of `grid_sample`'s range [-1, 1], row m in image images[m]."""
        height, width = self.size
        column, right = split(grid[..., 0], width)
        row, below = split(grid[..., 1], height)
        first = (images * (height + 1) * (width + 1)).int()
        index = torch.add(column, row, alpha=width + 1).add_(first[:, None])
        return Neighbours(self.packed.view(-1).index_select(0, index.view(-1)).view(index.shape), right, below)
