"""Attention through the flash-attn package (FlashAttention-2, Dao 2023) instead of torch's own kernels."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from luma_cli.errors import MeasureError
from luma_cli.measure.attention import Attend

# The package's kernels take heads of at most 256 channels, in half precision, without a mask.
LARGEST_HEAD = 256
HALF = (torch.float16, torch.bfloat16)
Kernel = Callable[..., torch.Tensor]


def load_kernel() -> Kernel:
    """The package's attention function. Raises MeasureError when it is not installed or does not load."""
    try:
        module = importlib.import_module("flash_attn")
    except ImportError as error:
        text = f"flash-attn does not import ({error}); try: pip install 'luma-seg[flash]'"
        raise MeasureError(text) from error
    kernel: Kernel = module.flash_attn_func
    return kernel


def takes(call: Attend, device_type: str = "cuda") -> bool:
    """Whether the package can run this call exactly."""
    return (
        call.mask is None
        and call.query.dtype in HALF
        and call.query.device.type == device_type
        and call.query.dim() == 4
        and call.query.shape[-1] <= LARGEST_HEAD
        and call.value.shape[-1] == call.query.shape[-1]
        and call.dropout == 0
    )


class FlashAttn(TorchFunctionMode):
    """Redirects calls of scaled dot product attention that the package can run, and counts both kinds."""

    def __init__(self, kernel: Kernel, device_type: str = "cuda"):
        super().__init__()
        self._kernel = kernel
        self._device_type = device_type
        self.num_redirected = 0
        self.num_passed = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Redirect or let through. torch has heads before tokens, the package tokens before heads."""
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        call = Attend.of(args, kwargs)
        if not takes(call, self._device_type):
            self.num_passed += 1
            return func(*args, **kwargs)
        self.num_redirected += 1
        tokens_first = (tensor.transpose(1, 2) for tensor in (call.query, call.key, call.value))
        return self._kernel(*tokens_first, softmax_scale=call.scale, causal=call.causal).transpose(1, 2)
