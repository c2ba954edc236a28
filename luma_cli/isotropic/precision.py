"""Where a mixer leaves half precision: transforms and inverses that float16 or bfloat16 would ruin or cannot run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(dtype: torch.dtype) -> torch.dtype:
    """float32, or `dtype` itself where it has that precision or more."""
    return torch.promote_types(dtype, torch.float32)


def widened(tensor: Tensor) -> Tensor:
    """`tensor` in float32, or as it is where it has that or more (cuFFT knows no bfloat16)."""
    return tensor.to(wide(tensor.dtype))


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Within, autocast does not turn float32 products on `device` into half-precision ones."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
