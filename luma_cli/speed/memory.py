"""Memory of a training step without a device, a dataset or torch: weights, their optimiser, and what autograd keeps.

    bytes = parameters x 18 + batch x kept + base

18 bytes a parameter: float32 weight and gradient, two moments of AdamW, and the 16-bit copy of autocast. kept: bytes
that autograd keeps per image under 16-bit autocast, a multiple of the 16-bit activations that the cost table counts
(outputs of convolutions, linear layers and matrix products). It was counted with `saved_tensors_hooks` of
torch.autograd.graph on 22 backbones with LUMA at 224 to 512 px: 1.7 to 2.7 times, of convolutional ones 2.6 to 3.6, as
their BatchNorms keep more. base: context, buffers of the backward pass, the loss; an assumption.
"""

from __future__ import annotations

import math

from luma_cli.speed.model import activations_of
from luma_cli.speed.quantity import Z80, Quantity, Workload

BYTES_A_PARAMETER = 18
KEPT, KEPT_LOG_SD = 2.3, 0.2
KEPT_CONVOLUTIONAL, CONVOLUTIONAL_LOG_SD = 3.1, 0.25
BASE, BASE_SD = 0.8 * 2**30, 0.3 * 2**30
_ACTIVATION_BYTES = 2


def training_memory(workload: Workload, batch: int) -> Quantity | None:
    """Peak bytes of a step with `batch` images in one pass, 80% interval; None where something is not counted."""
    activations = activations_of(workload)
    if workload.params is None or activations is None:
        return None
    fixed = BYTES_A_PARAMETER * workload.params + BASE
    is_convolutional = workload.family == "convolutional"
    ratio, log_sd = (KEPT_CONVOLUTIONAL, CONVOLUTIONAL_LOG_SD) if is_convolutional else (KEPT, KEPT_LOG_SD)
    kept = ratio * _ACTIVATION_BYTES * activations * batch
    low, high = (kept * math.exp(sign * Z80 * log_sd) for sign in (-1, 1))
    note = f"one pass of {batch} crop{'' if batch == 1 else 's'}, AdamW, 16-bit autocast, no checkpointing"
    ends = fixed + low - Z80 * BASE_SD, fixed + high + Z80 * BASE_SD
    return Quantity("training_bytes", fixed + kept, *ends, "predicted", note=note)
