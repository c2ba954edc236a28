"""The loss of a linear probe: cross-entropy of every labelled pixel. B images, C classes, R x R pixels, h w patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, interpolate

from luma_cli.catalogue.datasets import IGNORED
from luma_cli.head.linear import PixelLogits
from luma_cli.head.segmenter import Output
from luma_cli.train.criterion import LossParts


class PixelCriterion:
    """Mean cross-entropy over labelled pixels; logits are brought to the labels' size. BCE and Dice are zero."""

    def totals(self, labels: Tensor) -> Tensor:
        """Float64 [1]: labelled pixels."""
        return (labels != IGNORED).sum().double()[None]

    def __call__(
        self, predictions: Sequence[Output], labels: Tensor, totals: Tensor, step: int, samples: Sequence[int]
    ) -> LossParts:
        """See `Criterion`; nothing is drawn, so `step` and `samples` do not matter."""
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
