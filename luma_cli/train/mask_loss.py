"""The loss of masks at random points: which query answers for which segment, then BCE and Dice of the matched masks.

Matching is the assignment of least cost, at points that all queries and segments of an image share; nothing in it has a
gradient. The loss takes three quarters of its points where the masks are least certain.
EoMT, arXiv 2503.19108, section 4.1, as Mask2Former, arXiv 2112.01527, section 3.3.
B images, K queries, C classes, S segments, P points, M matched masks, h w pixels of the logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.parts import HeadOutput
from luma_cli.train.points import PackedLabels, PointCounts, Points, choose, each, sample_shared, spread

_LARGEST_COST = 1e10
_MOST_FACTORS = 64  # of a half or more each: far from the smallest float32, 2 ** -126

Assignment = tuple[NDArray[np.int64], NDArray[np.int64]]


class Targets(NamedTuple):
    """Label maps of a batch as the loss reads them.

    classes: those of each image's segments, ascending; samples: of the images; groups: images that are done together.
    """

    labels: PackedLabels
    classes: Sequence[NDArray[np.int64]]
    samples: Sequence[int]
    groups: Sequence[range]


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


def costs(prediction: HeadOutput, grid: Tensor, masks: Tensor, classes: Tensor, recipe: Recipe) -> Tensor:
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


class MaskLoss(torch.autograd.Function):
    """Weighted BCE and Dice of the matched masks, summed over masks.

    The gradient is made on the way forward, from values that are there, and only of matched masks: [M, h, w] is kept
    instead of points and what was computed at them. Which points are chosen has no gradient (section 3.3).
    """

    @staticmethod
    def forward(
        ctx: Any, mask_logits: Tensor, targets: Targets, matches: Matches, points: Points, recipe: Recipe
    ) -> tuple[Tensor, Tensor]:
        """Mask logits [B, K, h, w] -> the weighted sum, and BCE and Dice as [2], which have no gradient."""
        counts = PointCounts.of(recipe)

        def work(images: range) -> tuple[Tensor, Tensor] | None:
            own = matches.of(images)
            if not len(own.queries):
                return None
            masks = mask_logits[own.images, own.queries].float()
            drawn = points.loss(targets.samples[images.start : images.stop], own.counts, counts)
            grid, logits = choose(masks, drawn, counts)
            wanted = targets.labels.around(grid, own.images).masks(own.classes[:, None])
            compared = Compared(logits, logits.sigmoid(), wanted)
            sums = torch.stack((compared.bce().sum(), compared.dice().sum()))
            return sums, spread(compared.slope(recipe), masks, grid) if ctx.needs_input_grad[0] else masks[:0]

        found = [pair for pair in each(work, targets.groups, mask_logits.device) if pair is not None]
        zero = torch.zeros(2, device=mask_logits.device)
        sums = torch.stack([zero, *(pair[0] for pair in found)]).sum(0)
        ctx.save_for_backward(matches.images, matches.queries, *(pair[1] for pair in found))
        ctx.shape, ctx.dtype = mask_logits.shape, mask_logits.dtype
        ctx.mark_non_differentiable(sums)
        return recipe.bce_weight * sums[0] + recipe.dice_weight * sums[1], sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the matched masks where they belong, zero elsewhere."""
        images, queries, *gradients = ctx.saved_tensors
        found = torch.zeros(ctx.shape, dtype=ctx.dtype, device=upstream.device)
        if gradients:
            rows = (images * ctx.shape[1] + queries).split([len(gradient) for gradient in gradients])
            for index, gradient in zip(rows, gradients, strict=True):
                found.flatten(0, 1).index_copy_(0, index, (gradient * upstream).to(ctx.dtype))
        return found, None, None, None, None


class Compared(NamedTuple):
    """Logits x, chances p = sigmoid(x) and masks t at points, float32 [M, P] each."""

    logits: Tensor
    chances: Tensor
    masks: Tensor

    def bce(self) -> Tensor:
        """Binary cross-entropy, mean over points: [M]. No term is negative, so that large numbers do not cancel."""
        above = self.logits.clamp_min(0)
        certain = above * (1 - self.masks) + (above - self.logits) * self.masks
        return (certain + softplus(-self.logits.abs())).mean(-1)

    def dice(self) -> Tensor:
        """1 - (2 sum(p t) + 1) / (sum p + sum t + 1): [M]."""
        numerator, denominator = self._dice_terms()
        return 1 - (numerator / denominator).squeeze(-1)

    def slope(self, recipe: Recipe) -> Tensor:
        """Derivative of weighted BCE + Dice by the logits: [M, P]."""
        numerator, denominator = self._dice_terms()
        of_bce = (self.chances - self.masks).mul_(recipe.bce_weight / self.masks.shape[-1])
        of_dice = (numerator / denominator - 2 * self.masks).mul_(recipe.dice_weight / denominator)
        return of_bce.add_(of_dice.mul_(self.chances).mul_(1 - self.chances))

    def _dice_terms(self) -> tuple[Tensor, Tensor]:
        numerator = 2 * (self.chances * self.masks).sum(-1, keepdim=True) + 1
        return numerator, self.chances.sum(-1, keepdim=True) + self.masks.sum(-1, keepdim=True) + 1
