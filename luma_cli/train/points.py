"""Mask logits at random points, and the points where they are least certain (PointRend, arXiv 1912.08193, section 3.2).

B images, K queries, M masks, h w pixels of the logits, P points. A grid holds points (x, y) of `grid_sample`'s range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, grid_sample

from luma_cli.catalogue.recipes import Recipe
from luma_cli.seeds import LOSS, MATCHING
from luma_cli.train.bilinear import split
from luma_cli.train.draws import uniform


@dataclass(frozen=True, slots=True)
class PointCounts:
    """Points of a matched mask: `candidates` drawn, of which the `uncertain` least certain stay, and `fresh` ones."""

    candidates: int
    uncertain: int
    fresh: int

    @classmethod
    def of(cls, recipe: Recipe) -> PointCounts:
        """As the recipe has them: 37632, 9408 and 3136 for its default of 12544."""
        uncertain = int(recipe.importance_ratio * recipe.num_points)
        return cls(int(recipe.num_points * recipe.oversample_ratio), uncertain, recipe.num_points - uncertain)


@dataclass(frozen=True, slots=True)
class Points:
    """Random points for one prediction, each image's own: `key` is seed and step, `prediction` its number."""

    key: tuple[int, int]
    prediction: int
    device: torch.device

    def matching(self, samples: Sequence[int], count: int) -> Tensor:
        """Points that all queries and segments of an image share: a grid [B, count, 2]."""
        return torch.stack([self._grid((count, 2), MATCHING, sample) for sample in samples])

    def loss(self, samples: Sequence[int], masks: Sequence[int], counts: PointCounts) -> Tensor:
        """Points of each of an image's matched masks: a grid [M, candidates + fresh, 2], M the sum of `masks`."""
        drawn = counts.candidates + counts.fresh
        grids = [self._grid((each, drawn, 2), LOSS, sample) for sample, each in zip(samples, masks, strict=True)]
        return grids[0] if len(grids) == 1 else torch.cat(grids)

    def _grid(self, shape: tuple[int, ...], purpose: int, sample: int) -> Tensor:
        drawn = uniform(shape, self.device, purpose, *self.key, sample, self.prediction)
        return drawn.mul_(2).sub_(1)


def sample_shared(masks: Tensor, grid: Tensor) -> Tensor:
    """Masks [B, K, h, w], all of an image at the same points [B, P, 2] -> [B, P, K].

    As K values of one pixel are read together, this took 2/3 of the time of `grid_sample`, the transposition included.
    """
    batch, queries, height, width = masks.shape
    right, share_right = split(grid[..., 0], width)
    below, share_below = split(grid[..., 1], height)
    columns, across = _inside(right, share_right, width)
    rows, down = _inside(below, share_below, height)
    first = torch.arange(batch, device=grid.device)[:, None, None, None] * (height * width)
    pixels = first + rows[..., :, None] * width + columns[..., None, :]
    weights = down[..., :, None] * across[..., None, :]
    table = masks.flatten(2).transpose(1, 2).contiguous().view(-1, queries)
    found = embedding_bag(pixels.view(-1, 4), table, per_sample_weights=weights.view(-1, 4), mode="sum")
    return found.view(batch, -1, queries)


def _inside(after: Tensor, share: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Indices and weights [..., 2] of the pixels on both sides of a point; one outside has weight 0."""
    pixels = torch.stack((after - 1, after), dim=-1)
    weights = torch.stack((1 - share, share), dim=-1)
    return pixels.clamp(0, size - 1), weights.masked_fill_((pixels < 0) | (pixels >= size), 0)


def sample_each(masks: Tensor, grid: Tensor) -> Tensor:
    """Masks [M, h, w], each at its own points [M, P, 2] -> [M, P]."""
    return grid_sample(masks[:, None], grid[:, :, None], align_corners=False)[:, 0, :, 0]


def spread(gradients: Tensor, masks: Tensor, grid: Tensor) -> Tensor:
    """Gradients [M, P] at points [M, P, 2] -> gradients [M, h, w] of the masks: the transpose of `sample_each`."""
    found: Tensor
    found, _ = torch.ops.aten.grid_sampler_2d_backward(
        gradients[:, None, :, None], masks[:, None], grid[:, :, None], 0, 0, False, [True, False]
    )
    return found[:, 0]


def choose(masks: Tensor, drawn: Tensor, counts: PointCounts) -> tuple[Tensor, Tensor]:
    """Masks [M, h, w] and points drawn for each [M, candidates + fresh, 2] -> those that stay, and the logits there.

    Gives a grid [M, P, 2] and float32 [M, P]: the least |logit| of the candidates, then the fresh points.
    """
    logits = sample_each(masks, drawn)
    index = least(logits[:, : counts.candidates].abs(), counts.uncertain)
    pairs = drawn.view(torch.int64).squeeze(-1)  # a point is 8 bytes: moved whole
    kept = torch.cat((pairs.gather(1, index), pairs[:, counts.candidates :]), dim=1)
    values = torch.cat((logits.gather(1, index), logits[:, counts.candidates :]), dim=1)
    return kept.unsqueeze(-1).view(torch.float32), values


def least(values: Tensor, count: int) -> Tensor:
    """Indices int64 [M, count] of the `count` smallest of values [M, P], in any order; NaN is largest.

    On the CPU by NumPy's selection, which took 1/20 of the time of torch.topk.
    """
    if count == 0:
        return torch.zeros(len(values), 0, dtype=torch.int64, device=values.device)
    if values.device.type == "cpu":
        return torch.from_numpy(np.argpartition(values.numpy(), count - 1, axis=1)[:, :count]).contiguous()
    return values.topk(count, dim=1, largest=False, sorted=False).indices
