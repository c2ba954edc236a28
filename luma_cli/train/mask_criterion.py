"""The loss of mask heads: each segment is matched to a query, which then has to give its mask and its class.

total = 5 BCE + 5 Dice + 2 CE per prediction, summed over predictions (arXiv 2503.19108, section 4.1).
B images, K queries, C classes, S segments, P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from luma_cli.head.config import HeadConfig
from luma_cli.head.create import Output
from luma_cli.head.mask_module import Prediction
from luma_cli.seeds import LOSS, MATCHING
from luma_cli.train.criterion import LossParts
from luma_cli.train.draws import uniform
from luma_cli.train.mask_loss import MaskLoss, counts_of
from luma_cli.train.matching import Matches, assign, costs, gather
from luma_cli.train.points import to_grid
from luma_cli.train.recipe import Recipe
from luma_cli.train.targets import PackedLabels, present, segments


class MaskCriterion:
    """Matching, BCE, Dice and classes of predictions with class and mask logits."""

    def __init__(self, head: HeadConfig, recipe: Recipe, seed: int) -> None:
        self.recipe = recipe
        self.seed = seed
        self.num_queries = head.num_queries
        self.num_classes = head.num_classes

    def totals(self, labels: Tensor) -> Tensor:
        """Float64 [2]: matched masks, and the class weights of all B K queries."""
        found = present(labels)[:, : self.num_classes].sum(1).clamp_max(self.num_queries).sum().double()
        others = len(labels) * self.num_queries - found
        return torch.stack((found, found + others * self.recipe.no_object_weight))

    def __call__(
        self, predictions: Sequence[Output], labels: Tensor, totals: Tensor, step: int, samples: Sequence[int]
    ) -> LossParts:
        """See `Criterion`; a prediction that is not finite makes the total NaN."""
        known = [prediction for prediction in predictions if isinstance(prediction, Prediction)]
        assert len(known) == len(predictions)
        with torch.autocast(labels.device.type, enabled=False):
            classes = segments(labels, self.num_classes, samples)
            packed = PackedLabels(labels)
            matches = self._match(known, packed, classes, step, samples)
            parts = [
                self._loss(prediction, matched, packed, totals, (step, number), samples)
                for number, (prediction, matched) in enumerate(zip(known, matches, strict=True))
            ]
        return LossParts(*(torch.stack(column).sum() for column in zip(*parts, strict=True)))

    @torch.no_grad()
    def _match(
        self,
        predictions: Sequence[Prediction],
        labels: PackedLabels,
        classes: Sequence[NDArray[np.int64]],
        step: int,
        samples: Sequence[int],
    ) -> list[Matches]:
        """Matches of each prediction; the costs of all leave the device together."""
        device = labels.packed.device
        on_device = [torch.from_numpy(values).to(device) for values in classes]
        matrices = [
            costs(
                prediction,
                image,
                labels,
                on_device[image],
                self._matching_grid(device, step, sample, number),
                self.recipe,
            )
            for number, prediction in enumerate(predictions)
            for image, sample in enumerate(samples)
        ]
        sizes = [matrix.shape for matrix in matrices]
        flat = torch.cat([matrix.flatten() for matrix in matrices]).cpu().numpy()
        ends = np.cumsum([rows * columns for rows, columns in sizes])
        found = [assign(part.reshape(size)) for part, size in zip(np.split(flat, ends[:-1]), sizes, strict=True)]
        batch = len(samples)
        return [gather(found[i * batch : (i + 1) * batch], classes, device) for i in range(len(predictions))]

    def _matching_grid(self, device: torch.device, step: int, sample: int, number: int) -> Tensor:
        return to_grid(uniform((self.recipe.num_points, 2), device, MATCHING, self.seed, step, sample, number))

    def _loss(
        self,
        prediction: Prediction,
        matches: Matches,
        labels: PackedLabels,
        totals: Tensor,
        when: tuple[int, int],
        samples: Sequence[int],
    ) -> LossParts:
        device = labels.packed.device
        step, number = when
        drawn = counts_of(self.recipe).drawn
        points = [
            to_grid(uniform((count, drawn, 2), device, LOSS, self.seed, step, sample, number))
            for count, sample in zip(matches.counts, samples, strict=True)
        ]
        num_masks = totals[0].clamp_min(1).float()
        weighted, sums = MaskLoss.apply(prediction.mask_logits, matches, labels, points, self.recipe)
        classes = self._classes(prediction.class_logits.float(), matches) / totals[1].float()
        total = weighted / num_masks + self.recipe.class_weight * classes
        sums = sums / num_masks
        return LossParts(total, sums[0], sums[1], classes.detach())

    def _classes(self, logits: Tensor, matches: Matches) -> Tensor:
        """Weighted cross-entropy of logits [B, K, C + 1], summed; queries without a segment are "no object"."""
        wanted = torch.full(logits.shape[:2], self.num_classes, device=logits.device)
        wanted[matches.images, matches.queries] = matches.classes
        weight = torch.ones(self.num_classes + 1, device=logits.device)
        weight[-1] = self.recipe.no_object_weight
        return cross_entropy(logits.flatten(0, 1), wanted.flatten(), weight, reduction="sum")
