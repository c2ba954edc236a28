"""Which query answers for which segment: the assignment of least cost (Mask2Former, arXiv 2112.01527, section 3.3).

Costs are measured at random points that all queries and segments of an image share; nothing here has a gradient.
B images, K queries, C classes, S segments, P points, M matched masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.parts import Prediction
from luma_cli.train.points import sample_shared

_LARGEST_COST = 1e10
_MOST_FACTORS = 64  # of a half or more each: far from the smallest float32, 2 ** -126

Assignment = tuple[NDArray[np.int64], NDArray[np.int64]]


class Matches(NamedTuple):
    """Matched masks of a batch, by image and then by class: int64 [M] each; `counts`: how many each image has."""

    images: Tensor
    queries: Tensor
    classes: Tensor
    counts: tuple[int, ...]

    def of(self, images: range) -> Matches:
        """Those of some neighbouring images; their numbers stay."""
        first = sum(self.counts[: images.start])
        counts = self.counts[images.start : images.stop]
        masks = slice(first, first + sum(counts))
        return Matches(self.images[masks], self.queries[masks], self.classes[masks], counts)


def costs(prediction: Prediction, grid: Tensor, masks: Tensor, classes: Tensor, recipe: Recipe) -> Tensor:
    """What it costs that query k answers for segment s: [B, S, K].

    grid: points [B, P, 2]; masks: the segments there [B, S, P]; classes: theirs, int64 [B, S].
    """
    logits = sample_shared(prediction.mask_logits.float(), grid)
    chances = logits.sigmoid()
    probabilities = prediction.class_logits.float().softmax(-1).transpose(1, 2)
    chosen = probabilities.gather(1, classes[..., None].expand(-1, -1, probabilities.shape[2]))
    return (
        recipe.bce_weight * _pairwise_bce(logits, chances, masks)
        + recipe.dice_weight * _pairwise_dice(chances, masks)
        - recipe.class_weight * chosen
    )


def _pairwise_bce(logits: Tensor, chances: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy, mean over P, of logits x and chances [B, P, K] with masks t [B, S, P] -> [B, S, K].

    max(x, 0) (1 - t) + max(-x, 0) t + log(1 + exp(-|x|)): no term is negative, so that large numbers do not cancel.
    """
    above = logits.clamp_min(0)
    below = above - logits
    return ((1 - masks) @ above + masks @ below + _sum_softplus(chances)) / logits.shape[1]


def _sum_softplus(chances: Tensor) -> Tensor:
    """Sum over P of log(1 + exp(-|x|)) for chances p = sigmoid(x) [B, P, K] -> [B, 1, K].

    That is -log max(p, 1 - p); logarithms are taken of products, as they take most of the time otherwise.
    """
    batch, points, queries = chances.shape
    factors = torch.maximum(chances, 1 - chances).view(batch, -1, math.gcd(points, _MOST_FACTORS), queries)
    return factors.prod(2).log().sum(1, keepdim=True).neg()


def _pairwise_dice(chances: Tensor, masks: Tensor) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum p + sum t + 1) of chances [B, P, K] and masks [B, S, P] -> [B, S, K]."""
    sums = chances.sum(1, keepdim=True) + masks.sum(2, keepdim=True)
    return 1 - (2 * (masks @ chances) + 1) / (sums + 1)


def assign(matrix: NDArray[np.float32]) -> Assignment:
    """Costs [S, K] -> the min(S, K) pairs of least total cost: segments, ascending, and their queries.

    A cost that is no number counts as 0, and all lie within 1e10, so that a diverged model is matched as well.
    """
    from scipy.optimize import linear_sum_assignment

    bounded = np.clip(np.where(np.isnan(matrix), 0, matrix), -_LARGEST_COST, _LARGEST_COST)
    segments, queries = linear_sum_assignment(bounded)
    return segments, queries


def gather(found: Sequence[Assignment], classes: Sequence[NDArray[np.int64]], device: torch.device) -> Matches:
    """The assignments of B images and the classes of their segments -> the matched masks, on `device`."""
    counts = tuple(len(queries) for _, queries in found)
    images = np.repeat(np.arange(len(found)), counts)
    queries = np.concatenate([queries for _, queries in found])
    of_masks = np.concatenate([values[chosen] for values, (chosen, _) in zip(classes, found, strict=True)])
    columns = torch.from_numpy(np.stack([images, queries, of_masks])).to(device)
    return Matches(columns[0], columns[1], columns[2], counts)
