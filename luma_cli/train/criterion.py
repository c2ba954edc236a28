"""What a training minimises: the loss of a batch of predictions against label maps, for the head that is trained.

Mask heads: each segment is matched to a query, which then has to give its mask and its class;
total = 5 BCE + 5 Dice + 2 CE per prediction, summed over predictions (EoMT, arXiv 2503.19108, section 4.1). Linear
probe: cross-entropy of every labelled pixel.
B images, R x R pixels of a label map, K queries, C classes, S segments, P points, h w patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, interpolate

from luma_cli.catalogue.datasets import IGNORED
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.errors import BuildError
from luma_cli.head.linear import PixelLogits
from luma_cli.head.parts import HeadOutput
from luma_cli.head.segmenter import Output
from luma_cli.train.mask_loss import MaskLoss, Matches, Targets, assign, costs, gather
from luma_cli.train.points import PackedLabels, Points, each, groups, present, segments, whole_float32

_LEAST_WEIGHT = 1e-6  # of all queries together: 0 when none has a segment and "no object" weighs nothing


class LossParts(NamedTuple):
    """`total` is the weighted sum and carries the gradient; bce, dice and classes are its parts before their weights.

    All are float32 scalars, summed over predictions; the parts are for display and carry no gradient.
    """

    total: Tensor
    bce: Tensor
    dice: Tensor
    classes: Tensor


def create_criterion(head: HeadConfig, recipe: Recipe, seed: int) -> Criterion:
    """The loss of `head` with the weights and numbers of points of `recipe`. Raises BuildError for head `none`."""
    if head.name == "none":
        raise BuildError("head 'none' predicts nothing that could be trained; choose luma, eomt, mask2former or linear")
    return PixelCriterion() if head.name == "linear" else MaskCriterion(head, recipe, seed)


class MaskCriterion:
    """Matching, BCE, Dice and classes of predictions with class and mask logits.

    It has no parameters and keeps nothing between calls. Random points depend on seed, step, sample and prediction, not
    on ranks, micro-batches or the order of the images.
    """

    def __init__(self, head: HeadConfig, recipe: Recipe, seed: int) -> None:
        self.recipe = recipe
        self.seed = seed
        self.num_queries = head.num_queries
        self.num_classes = head.num_classes

    def totals(self, labels: Tensor) -> Tensor:
        """What the loss of a batch is divided by, float64 [2]: matched masks, class weights of all B K queries.

        Summed over micro-batches and ranks and divided by the number of ranks, it makes the sum of the losses of
        micro-batches, averaged over ranks, the loss of the whole batch.
        """
        held = present(labels)[:, : self.num_classes].sum(1)
        found = held.clamp_max(self.num_queries).sum().double()
        return torch.stack((found, found + (len(labels) * self.num_queries - found) * self.recipe.no_object_weight))

    def __call__(
        self, predictions: Sequence[Output], labels: Tensor, totals: Tensor, step: int, samples: Sequence[int]
    ) -> LossParts:
        """The loss of `predictions`, in float32 whatever their dtype; its total is NaN when any logit is not finite.

        labels: uint8 [B, R, R], classes and 255 for pixels that do not count, on the predictions' device. step,
        samples: of the optimiser, and the B indices of the images in their dataset.
        Raises DataError for a label that is no class.
        """
        known = [prediction for prediction in predictions if isinstance(prediction, HeadOutput)]
        assert len(known) == len(predictions)
        with whole_float32(labels.device):
            classes = segments(labels, self.num_classes, samples)
            targets = Targets(PackedLabels(labels), classes, samples, groups(len(labels), labels.device))
            points = [Points((self.seed, step), number, labels.device) for number in range(len(known))]
            matches = self._match(known, targets, points)
            parts = [
                self._loss(prediction, targets, matched, drawn, totals)
                for prediction, matched, drawn in zip(known, matches, points, strict=True)
            ]
            return LossParts(*(torch.stack(column).sum() for column in zip(*parts, strict=True)))

    @torch.no_grad()
    def _match(self, predictions: Sequence[HeadOutput], targets: Targets, points: Sequence[Points]) -> list[Matches]:
        """Matches of each prediction; the costs of all leave the device together."""
        most = max(len(classes) for classes in targets.classes)
        padded = np.stack([np.pad(classes, (0, most - len(classes))) for classes in targets.classes])
        classes = torch.from_numpy(padded).to(targets.labels.packed.device)
        tables = [self._costs(found, targets, drawn, classes) for found, drawn in zip(predictions, points, strict=True)]
        matched = []
        for table in torch.stack(tables).cpu().numpy():
            found = [assign(matrix[: len(own)]) for matrix, own in zip(table, targets.classes, strict=True)]
            matched.append(gather(found, targets.classes, classes.device))
        return matched

    def _costs(self, prediction: HeadOutput, targets: Targets, points: Points, classes: Tensor) -> Tensor:
        """Costs [B, S, K] of one prediction; an image with fewer than S segments has rows that mean nothing."""

        def work(images: range) -> Tensor:
            chosen = slice(images.start, images.stop)
            own = HeadOutput(prediction.class_logits[chosen], prediction.mask_logits[chosen])
            grid = points.matching(targets.samples[chosen], self.recipe.num_points)
            numbers = torch.arange(images.start, images.stop, device=grid.device)
            masks = targets.labels.around(grid, numbers).unsqueeze().masks(classes[chosen, :, None])
            return costs(own, grid, masks, classes[chosen], self.recipe)

        return torch.cat(each(work, targets.groups, classes.device))

    def _loss(
        self, prediction: HeadOutput, targets: Targets, matches: Matches, points: Points, totals: Tensor
    ) -> LossParts:
        num_masks = totals[0].clamp_min(1).float()
        weight = totals[1].clamp_min(_LEAST_WEIGHT).float()
        weighted, sums = MaskLoss.apply(prediction.mask_logits, targets, matches, points, self.recipe)
        classes = self._classes(prediction.class_logits.float(), matches) / weight
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


class PixelCriterion:
    """Mean cross-entropy over labelled pixels; logits are brought to the labels' size. BCE and Dice are zero."""

    def totals(self, labels: Tensor) -> Tensor:
        """Float64 [1]: labelled pixels."""
        return (labels != IGNORED).sum().double()[None]

    def __call__(
        self, predictions: Sequence[Output], labels: Tensor, totals: Tensor, step: int, samples: Sequence[int]
    ) -> LossParts:
        """As `MaskCriterion`; nothing is drawn, so `step` and `samples` do not matter."""
        known = [prediction for prediction in predictions if isinstance(prediction, PixelLogits)]
        assert len(known) == len(predictions)
        with torch.autocast(labels.device.type, enabled=False):
            sums = [PixelLoss.apply(prediction.logits, labels) for prediction in known]
        total = torch.stack(sums).sum() / totals[0].clamp_min(1).float()
        zero = torch.zeros_like(total.detach())
        return LossParts(total, zero, zero, total.detach())


class PixelLoss(torch.autograd.Function):
    """Summed cross-entropy, image by image: resized logits of a whole batch (2.5 GB at 150 classes) are never held."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits [B, C, h, w] against labels [B, R, R] -> scalar."""
        losses, gradients = [], []
        for image in range(len(labels)):
            with torch.enable_grad():
                own = logits[image : image + 1].detach().float().requires_grad_()
                resized = interpolate(own, labels.shape[1:], mode="bilinear", align_corners=False)
                loss = cross_entropy(resized, labels[image : image + 1].long(), ignore_index=IGNORED, reduction="sum")
            losses.append(loss.detach())
            if ctx.needs_input_grad[0]:
                gradients.append(torch.autograd.grad(loss, own)[0])
        ctx.dtype = logits.dtype
        ctx.save_for_backward(*gradients)
        return torch.stack(losses).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """The gradient made on the way forward, times `upstream`."""
        return (torch.cat(ctx.saved_tensors) * upstream).to(ctx.dtype), None


Criterion = MaskCriterion | PixelCriterion
