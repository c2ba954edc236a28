"""Which query answers for which segment: the assignment of least cost (arXiv 2503.19108, section 3.1; Mask2Former,
arXiv 2112.01527, section 3.3), with costs measured at random points that all queries and segments of an image share.

B images, K queries, C classes, S segments, P points, M matched masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luma_cli.head.mask_module import Prediction
from luma_cli.train.points import sample_all
from luma_cli.train.recipe import Recipe
from luma_cli.train.targets import PackedLabels

_LARGEST_COST = 1e10


class Matches(NamedTuple):
    """Matched masks of a batch, by image and then by class: int64 [M] each; `counts`: how many each image has."""

    images: Tensor
    queries: Tensor
    classes: Tensor
    counts: tuple[int, ...]


def costs(
    prediction: Prediction, image: int, labels: PackedLabels, classes: Tensor, grid: Tensor, recipe: Recipe
) -> Tensor:
    """What it costs that query k answers for the segment of `classes` [S] in one image -> [K, S].

    grid: points [P, 2] of `grid_sample`'s range.
    """
    logits = sample_all(prediction.mask_logits[image].float(), grid)
    around = labels.around(grid[None], torch.full((1,), image, device=grid.device))
    masks = around.masks(classes[:, None, None])
    probabilities = prediction.class_logits[image].float().softmax(-1)
    return (
        recipe.bce_weight * _pairwise_bce(logits, masks)
        + recipe.dice_weight * _pairwise_dice(logits.sigmoid(), masks)
        - recipe.class_weight * probabilities[:, classes]
    )


def _pairwise_bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy, mean over P, of logits [K, P] against masks [S, P] -> [K, S].

    Every term is positive, so that no large numbers cancel: max(x, 0)(1 - t) + max(-x, 0) t + log(1 + exp(-|x|)).
    """
    above = logits.clamp_min(0)
    common = torch.nn.functional.softplus(-logits.abs()).sum(-1, keepdim=True)
    return (common + above @ (1 - masks).T + (above - logits) @ masks.T) / logits.shape[-1]


def _pairwise_dice(chances: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum p + sum t + 1) of chances [K, P] and masks [S, P] -> [K, S]."""
    sums = chances.sum(-1)[:, None] + masks.sum(-1)[None]
    return 1 - (2 * chances @ masks.T + 1) / (sums + 1)


def assign(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Costs [K, S] -> the min(K, S) pairs of least total cost: queries, and segments in ascending order.

    A cost that is no number counts as 0, and all lie within 1e10, so that a diverged model is matched as well.
    """
    from scipy.optimize import linear_sum_assignment

    bounded = np.clip(
        np.nan_to_num(matrix, nan=0.0, posinf=_LARGEST_COST, neginf=-_LARGEST_COST), -_LARGEST_COST, _LARGEST_COST
    )
    segments, queries = linear_sum_assignment(bounded.T)
    return queries, segments


def gather(
    found: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    classes: Sequence[NDArray[np.int64]],
    device: torch.device,
) -> Matches:
    """The assignments of B images and the classes of their segments -> the matched masks, on `device`."""
    counts = tuple(len(queries) for queries, _ in found)
    images = np.repeat(np.arange(len(found)), counts)
    queries = np.concatenate([queries for queries, _ in found])
    of_masks = np.concatenate([values[chosen] for values, (_, chosen) in zip(classes, found, strict=True)])
    columns = torch.from_numpy(np.stack([images, queries, of_masks])).to(device, torch.int64)
    return Matches(columns[0], columns[1], columns[2], counts)
