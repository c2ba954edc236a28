"""BCE and Dice of matched masks at sampled points, three quarters of them where the masks are least certain.

EoMT, arXiv 2503.19108, section 3.1; Mask2Former, arXiv 2112.01527, section 3.3. M masks, P points, B images, K queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from luma_cli.train.matching import Matches
from luma_cli.train.points import least, sample_each, spread
from luma_cli.train.recipe import Recipe
from luma_cli.train.targets import PackedLabels


class Counts(NamedTuple):
    """Points of a mask: `candidates` drawn, of which the `uncertain` least certain are kept, and `fresh` ones."""

    candidates: int
    uncertain: int
    fresh: int

    @property
    def drawn(self) -> int:
        """Points drawn for a mask."""
        return self.candidates + self.fresh

    @property
    def kept(self) -> int:
        """P, points at which a mask is compared."""
        return self.uncertain + self.fresh


def counts_of(recipe: Recipe) -> Counts:
    """Numbers of points as `recipe` has them: 37632, 9408 and 3136 for its default of 12544."""
    uncertain = int(recipe.importance_ratio * recipe.num_points)
    return Counts(int(recipe.num_points * recipe.oversample_ratio), uncertain, recipe.num_points - uncertain)


class Sampled(NamedTuple):
    """Points of M masks as a grid [M, P, 2], and the logits there [M, P]."""

    grid: Tensor
    logits: Tensor


def choose(masks: Tensor, grid: Tensor, counts: Counts) -> Sampled:
    """Masks [M, h, w] and points drawn for each [M, candidates + fresh, 2] -> the points that are kept."""
    logits = sample_each(masks, grid)
    index = least(logits[:, : counts.candidates].abs(), counts.uncertain)
    pairs = grid.view(torch.int64).squeeze(-1)  # a point is 8 bytes: gathered whole
    kept = torch.cat((pairs.gather(1, index), pairs[:, counts.candidates :]), dim=1)
    return Sampled(
        kept.unsqueeze(-1).view(torch.float32),
        torch.cat((logits.gather(1, index), logits[:, counts.candidates :]), dim=1),
    )


def bce(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropy [M] of logits [M, P] against masks [M, P], mean over points."""
    above = logits.clamp_min(0)
    softplus = torch.nn.functional.softplus(-logits.abs())
    return (above * (1 - masks) + (above - logits) * masks + softplus).mean(-1)


class Dice(NamedTuple):
    """1 - (2 sum(p t) + 1) / (sum p + sum t + 1) per mask: [M], numerator and denominator [M, 1]."""

    loss: Tensor
    numerator: Tensor
    denominator: Tensor


def dice(chances: Tensor, masks: Tensor) -> Dice:
    """Dice loss of chances [M, P] against masks [M, P]."""
    numerator = 2 * (chances * masks).sum(-1, keepdim=True) + 1
    denominator = (chances.sum(-1, keepdim=True) + masks.sum(-1, keepdim=True)) + 1
    return Dice(1 - (numerator / denominator).squeeze(-1), numerator, denominator)


class MaskLoss(torch.autograd.Function):
    """Weighted BCE and Dice of the matched masks, summed over masks; the gradient is made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        mask_logits: Tensor,
        matches: Matches,
        labels: PackedLabels,
        points: Sequence[Tensor],
        recipe: Recipe,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask logits [B, K, h, w], points per image [S, P', 2] -> weighted sum, BCE, Dice."""
        sums = mask_logits.new_zeros(2, dtype=torch.float32)
        gradients = []
        first = 0
        for image, grid in enumerate(points):
            chosen = slice(first, first + len(grid))
            first = chosen.stop
            masks = mask_logits[image].index_select(0, matches.queries[chosen]).float()
            sampled = choose(masks, grid, counts_of(recipe))
            wanted = labels.around(sampled.grid, matches.images[chosen]).masks(matches.classes[chosen, None, None])
            chances = sampled.logits.sigmoid()
            of_dice = dice(chances, wanted)
            sums += torch.stack((bce(sampled.logits, wanted).sum(), of_dice.loss.sum()))
            if ctx.needs_input_grad[0]:
                slope = _slope(chances, wanted, of_dice, recipe)
                gradients.append(spread(slope, masks, sampled.grid))
        ctx.shape, ctx.dtype = mask_logits.shape, mask_logits.dtype
        ctx.matches = matches
        ctx.gradients = gradients
        weighted = recipe.bce_weight * sums[0] + recipe.dice_weight * sums[1]
        ctx.mark_non_differentiable(sums)
        return weighted, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the matched masks where they belong, zero elsewhere."""
        found = torch.zeros(ctx.shape, dtype=ctx.dtype, device=upstream.device)
        if ctx.gradients:
            rows = (torch.cat(ctx.gradients) * upstream).to(ctx.dtype)
            found[ctx.matches.images, ctx.matches.queries] = rows
        return found, None, None, None, None


def _slope(chances: Tensor, masks: Tensor, of_dice: Dice, recipe: Recipe) -> Tensor:
    """Derivative of the weighted loss by the logits [M, P]."""
    of_bce = (chances - masks) * (recipe.bce_weight / masks.shape[-1])
    by_chance = (of_dice.numerator / of_dice.denominator - 2 * masks) / of_dice.denominator
    return of_bce + recipe.dice_weight * by_chance * chances * (1 - chances)
