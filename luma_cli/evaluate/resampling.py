"""Bilinear resizing of a map row by row, so that no map of the full size has to exist.

Every row is the one that `torch.nn.functional.interpolate(..., mode="bilinear", align_corners=False)` gives, up to
rounding. Maps are [rows, columns, channels]: neighbouring channels lie side by side in memory, which is what makes
resizing, products with class probabilities and argmax fast on a CPU. h w source, H W target.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

Rows = NDArray[np.int64]


def source_rows(rows: Rows, num_source: int, num_target: int) -> Rows:
    """Which of `num_source` rows are needed for these of `num_target` rows, ascending."""
    if num_source == num_target:
        return rows
    lower, upper, _ = _taps(rows, num_source, num_target)
    return np.unique(np.concatenate([lower, upper]))


def resize_rows(slab: Tensor, slab_rows: Rows, rows: Rows, num_source: int, num_target: int) -> Tensor:
    """Rows `rows` of the resized map [len(rows), w, C], from a slab [len(slab_rows), w, C] that holds what they need.

    A product with a matrix that has at most two weights per row: on a CPU twice as fast as gathering and mixing.
    """
    if num_source == num_target:
        return slab if len(rows) == len(slab_rows) else slab[torch.from_numpy(rows - slab_rows[0]).to(slab.device)]
    lower, upper, weight = _taps(rows, num_source, num_target)
    matrix = np.zeros((len(rows), len(slab_rows)), dtype=np.float32)
    order = np.arange(len(rows))
    matrix[order, np.searchsorted(slab_rows, lower)] = 1 - weight
    matrix[order, np.searchsorted(slab_rows, upper)] += weight
    mixing = torch.from_numpy(matrix).to(slab.device)
    return (mixing @ slab.flatten(1)).view(len(rows), *slab.shape[1:])


def resize_columns(slab: Tensor, num_columns: int) -> Tensor:
    """[rows, w, C] -> [rows, num_columns, C]."""
    if slab.shape[1] == num_columns:
        return slab
    planes = slab.permute(2, 0, 1)[None]
    resized = interpolate(planes, (slab.shape[0], num_columns), mode="bilinear", align_corners=False)
    return resized[0].permute(1, 2, 0)


def _taps(rows: Rows, num_source: int, num_target: int) -> tuple[Rows, Rows, NDArray[np.float32]]:
    """Per target row the two source rows that it lies between, and the weight of the second; in float32 as torch."""
    ratio, half = np.float32(num_source) / np.float32(num_target), np.float32(0.5)
    at = np.maximum(ratio * (rows.astype(np.float32) + half) - half, np.float32(0))
    lower = np.minimum(at.astype(np.int64), num_source - 1)
    upper = np.minimum(lower + 1, num_source - 1)
    return lower, upper, at - lower.astype(np.float32)
