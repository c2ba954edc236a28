"""The loss of mask heads: each segment is matched to a query, which then has to give its mask and its class.

total = 5 BCE + 5 Dice + 2 CE per prediction, summed over predictions (EoMT, arXiv 2503.19108, section 4.1).
B images, K queries, C classes, S segments, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.parts import Prediction
from luma_cli.head.segmenter import Output
from luma_cli.train.by_image import each, groups
from luma_cli.train.criterion import LossParts
from luma_cli.train.float32 import whole_float32
from luma_cli.train.mask_loss import MaskLoss, Task
from luma_cli.train.matching import Matches, assign, costs, gather
from luma_cli.train.points import Points
from luma_cli.train.targets import PackedLabels, present, segments

_LEAST_WEIGHT = 1e-6  # of all queries together: 0 when none has a segment and "no object" weighs nothing


class _Batch(NamedTuple):
    """Label maps as the loss reads them; `classes`: those of each image's segments, ascending."""

    labels: PackedLabels
    classes: Sequence[NDArray[np.int64]]
    samples: Sequence[int]
    groups: Sequence[range]


class MaskCriterion:
    """Matching, BCE, Dice and classes of predictions with class and mask logits; see `Criterion`."""

    def __init__(self, head: HeadConfig, recipe: Recipe, seed: int) -> None:
        self.recipe = recipe
        self.seed = seed
        self.num_queries = head.num_queries
        self.num_classes = head.num_classes

    def totals(self, labels: Tensor) -> Tensor:
        """Float64 [2]: matched masks, and the class weights of all B K queries."""
        held = present(labels)[:, : self.num_classes].sum(1)
        found = held.clamp_max(self.num_queries).sum().double()
        return torch.stack((found, found + (len(labels) * self.num_queries - found) * self.recipe.no_object_weight))

    def __call__(
        self, predictions: Sequence[Output], labels: Tensor, totals: Tensor, step: int, samples: Sequence[int]
    ) -> LossParts:
        """The total is NaN when any logit is not finite."""
        known = [prediction for prediction in predictions if isinstance(prediction, Prediction)]
        assert len(known) == len(predictions)
        with whole_float32(labels.device):
            classes = segments(labels, self.num_classes, samples)
            batch = _Batch(PackedLabels(labels), classes, samples, groups(len(labels), labels.device))
            points = [Points((self.seed, step), number, labels.device) for number in range(len(known))]
            matches = self._match(known, batch, points)
            parts = [
                self._loss(prediction, Task(matched, batch.labels, drawn, samples, batch.groups, self.recipe), totals)
                for prediction, matched, drawn in zip(known, matches, points, strict=True)
            ]
            return LossParts(*(torch.stack(column).sum() for column in zip(*parts, strict=True)))

    @torch.no_grad()
    def _match(self, predictions: Sequence[Prediction], batch: _Batch, points: Sequence[Points]) -> list[Matches]:
        """Matches of each prediction; the costs of all leave the device together."""
        most = max(len(classes) for classes in batch.classes)
        padded = np.stack([np.pad(classes, (0, most - len(classes))) for classes in batch.classes])
        classes = torch.from_numpy(padded).to(batch.labels.packed.device)
        tables = [self._costs(found, batch, drawn, classes) for found, drawn in zip(predictions, points, strict=True)]
        matrices = torch.stack(tables).cpu().numpy()
        return [
            gather(
                [assign(matrix[: len(own)]) for matrix, own in zip(table, batch.classes, strict=True)],
                batch.classes,
                classes.device,
            )
            for table in matrices
        ]

    def _costs(self, prediction: Prediction, batch: _Batch, points: Points, classes: Tensor) -> Tensor:
        """Costs [B, S, K] of one prediction; an image with fewer than S segments has rows that mean nothing."""

        def work(images: range) -> Tensor:
            chosen = slice(images.start, images.stop)
            own = Prediction(prediction.class_logits[chosen], prediction.mask_logits[chosen])
            grid = points.matching([batch.samples[image] for image in images], self.recipe.num_points)
            numbers = torch.arange(images.start, images.stop, device=grid.device)
            masks = batch.labels.around(grid, numbers).unsqueeze().masks(classes[chosen, :, None])
            return costs(own, grid, masks, classes[chosen], self.recipe)

        return torch.cat(each(work, batch.groups, classes.device))

    def _loss(self, prediction: Prediction, task: Task, totals: Tensor) -> LossParts:
        num_masks = totals[0].clamp_min(1).float()
        weighted, sums = MaskLoss.apply(prediction.mask_logits, task)
        classes = (
            self._classes(prediction.class_logits.float(), task.matches) / totals[1].clamp_min(_LEAST_WEIGHT).float()
        )
        doubt = _zero_or_nan(prediction.mask_logits) + _zero_or_nan(prediction.class_logits)
        total = weighted / num_masks + self.recipe.class_weight * classes + doubt
        return LossParts(total, sums[0] / num_masks, sums[1] / num_masks, classes.detach())

    def _classes(self, logits: Tensor, matches: Matches) -> Tensor:
        """Weighted cross-entropy of logits [B, K, C + 1], summed; queries without a segment are "no object"."""
        wanted = torch.full(logits.shape[:2], self.num_classes, device=logits.device)
        wanted[matches.images, matches.queries] = matches.classes
        weight = torch.ones(self.num_classes + 1, device=logits.device)
        weight[-1] = self.recipe.no_object_weight
        return cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight, reduction="sum")


def _zero_or_nan(values: Tensor) -> Tensor:
    """0, or NaN when a value is not finite: an unmatched mask would not show it."""
    low, high = torch.aminmax(values.detach())
    return low.float() * 0 + high.float() * 0
