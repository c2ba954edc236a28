"""Parameters that no loss reaches, e.g. of a second branch that the map does not come from (CoaT, CrossViT).

They are kept from training, so that processes that average gradients do not wait for theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from luma_cli.head.parts import Prediction
from luma_cli.head.segmenter import Segmenter
from luma_cli.isotropic.mixtures import balance_loss
from luma_cli.measure.facts import meta_twin

_BATCH = 2


def freeze_unreached(segmenter: Segmenter, resolution: int) -> tuple[str, ...]:
    """Turn training off for parameters that get no gradient; gives their names.

    Found by one backward pass of a copy on the meta device, which computes nothing; an EoMT head is in the state of
    its first step there, all queries masked, which needs no draws.
    """
    copy = meta_twin(segmenter).train()
    images = torch.zeros(_BATCH, 3, resolution, resolution, device="meta")
    outputs = [part for output in copy.predictions(images) for part in _tensors(output)]
    sums = [part.float().sum() for part in (*outputs, balance_loss(copy.backbone))]
    torch.autograd.backward([each for each in sums if each.requires_grad])
    trained = [(name, each) for name, each in copy.named_parameters() if each.requires_grad]
    unreached = {name for name, parameter in trained if parameter.grad is None}
    for name, parameter in segmenter.named_parameters():
        if name in unreached:
            parameter.requires_grad_(False)
    return tuple(sorted(unreached))


def _tensors(output: object) -> tuple[Tensor, ...]:
    return tuple(output) if isinstance(output, (Prediction, tuple)) else (output,)  # type: ignore[return-value]
