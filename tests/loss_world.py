"""Made-up predictions and label maps for the tests of the loss, and the loss written down plainly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, grid_sample

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.parts import HeadOutput
from luma_cli.seeds import LOSS, MATCHING
from luma_cli.train.criterion import MaskCriterion
from luma_cli.train.points import uniform

FEW_POINTS = Recipe(num_points=200)
SEED, STEP = 3, 7


def criterion(num_queries: int, num_classes: int, recipe: Recipe = FEW_POINTS) -> MaskCriterion:
    return MaskCriterion(HeadConfig(num_queries=num_queries, num_classes=num_classes), recipe, SEED)


def label_maps(batch: int, side: int, num_classes: int, seed: int = 0, ignored: float = 0.1) -> Tensor:
    """Blocky label maps uint8 [B, side, side], some pixels ignored."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randint(0, num_classes, (batch, 4, 4), generator=generator)
    maps = small.repeat_interleave(-(-side // 4), 1).repeat_interleave(-(-side // 4), 2)[:, :side, :side]
    void = torch.rand(batch, side, side, generator=generator) < ignored
    return maps.masked_fill(void, 255).to(torch.uint8)


def prediction(
    batch: int, num_queries: int, num_classes: int, side: int, seed: int = 0, scale: float = 3
) -> HeadOutput:
    """Random logits with gradients."""
    generator = torch.Generator().manual_seed(100 + seed)
    classes = torch.randn(batch, num_queries, num_classes + 1, generator=generator)
    masks = scale * torch.randn(batch, num_queries, side, side, generator=generator)
    return HeadOutput(classes.requires_grad_(), masks.requires_grad_())


def binary_masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """One label map [R, R] -> classes [S], ascending, and float masks [S, R, R]."""
    classes = labels.unique()[labels.unique() != 255].long()
    return classes, torch.stack([(labels == c).float() for c in classes]) if len(classes) else torch.zeros(
        0, *labels.shape
    )


def matching_points(recipe: Recipe, sample: int, number: int = 0) -> Tensor:
    return uniform((recipe.num_points, 2), "cpu", MATCHING, SEED, STEP, sample, number)


def loss_points(recipe: Recipe, count: int, sample: int, number: int = 0) -> tuple[Tensor, Tensor]:
    """Candidates [count, 3 P, 2] and fresh points [count, P / 4, 2] of the matched masks of an image, by class."""
    candidates = int(recipe.num_points * recipe.oversample_ratio)
    fresh = recipe.num_points - int(recipe.importance_ratio * recipe.num_points)
    drawn = uniform((count, candidates + fresh, 2), "cpu", LOSS, SEED, STEP, sample, number)
    return drawn[:, :candidates], drawn[:, candidates:]


def at(masks: Tensor, points: Tensor) -> Tensor:
    """Masks [M, h, w] at points [M, P, 2] of [0, 1] -> [M, P]."""
    return grid_sample(masks[:, None], 2 * points[:, :, None] - 1, align_corners=False)[:, 0, :, 0]


def matched(found: HeadOutput, image: int, labels: Tensor, points: Tensor) -> tuple[list[int], list[int]]:
    """Queries and classes of an image's matched segments, by class, from costs pair by pair."""
    classes, masks = binary_masks(labels)
    logits = found.mask_logits[image].detach()
    chances = found.class_logits[image].detach().softmax(-1)
    matrix = np.zeros((len(logits), len(classes)))
    for q, logit in enumerate(logits):
        x = at(logit[None], points[None])[0]
        for s, mask in enumerate(masks):
            t = at(mask[None], points[None])[0]
            dice = 1 - (2 * (x.sigmoid() * t).sum() + 1) / (x.sigmoid().sum() + t.sum() + 1)
            bce = binary_cross_entropy_with_logits(x, t)
            matrix[q, s] = 5 * bce + 5 * dice - 2 * chances[q, classes[s]]
    queries, segments = linear_sum_assignment(matrix)
    pairs = sorted(zip(segments.tolist(), queries.tolist(), strict=True))
    return [q for _, q in pairs], [int(classes[s]) for s, _ in pairs]


def plain_loss(found: HeadOutput, labels: Tensor, recipe: Recipe, samples: Sequence[int]) -> Tensor:
    """The total of one prediction, mask by mask and without a thought for speed."""
    batch, num_queries, classes_and_none = found.class_logits.shape
    bce, dice, num_masks = torch.zeros(()), torch.zeros(()), 0
    wanted = torch.full((batch, num_queries), classes_and_none - 1)
    for image, sample in enumerate(samples):
        queries, classes = matched(found, image, labels[image], matching_points(recipe, sample))
        num_masks += len(queries)
        candidates, fresh = loss_points(recipe, len(queries), sample)
        for row, (query, label) in enumerate(zip(queries, classes, strict=True)):
            wanted[image, query] = label
            logits = found.mask_logits[image, query][None]
            with torch.no_grad():
                order = at(logits, candidates[row][None])[0].abs().argsort()
            keep = order[: int(recipe.importance_ratio * recipe.num_points)]
            points = torch.cat((candidates[row][keep], fresh[row]))[None]
            x = at(logits, points)[0]
            t = at((labels[image] == label).float()[None], points)[0]
            bce = bce + binary_cross_entropy_with_logits(x, t)
            dice = dice + 1 - (2 * (x.sigmoid() * t).sum() + 1) / (x.sigmoid().sum() + t.sum() + 1)
    weight = torch.ones(classes_and_none)
    weight[-1] = recipe.no_object_weight
    of_classes = cross_entropy(found.class_logits.flatten(0, 1), wanted.flatten(), weight)
    return (5 * bce + 5 * dice) / max(num_masks, 1) + 2 * of_classes
