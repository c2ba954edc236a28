"""Attention kernels: chosen through torch's or timm's switches or flash-attn, checked before, listed after.

timm reads its switch when a module is built, so `set_fused` comes before building.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.backends.cuda import (
    SDPAParams,
    can_use_cudnn_attention,
    can_use_efficient_attention,
    can_use_flash_attention,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from luma_cli.errors import MeasureError

BACKENDS: dict[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
_ASK: dict[str, Callable[[SDPAParams, bool], bool]] = {
    "flash": can_use_flash_attention,
    "efficient": can_use_efficient_attention,
    "cudnn": can_use_cudnn_attention,
}
# The flash-attn package's kernels take heads of at most 256 channels, in half precision, without a mask.
LARGEST_HEAD = 256
HALF = (torch.float16, torch.bfloat16)
Kernel = Callable[..., torch.Tensor]

_OPERATOR = re.compile(r"aten::_?(scaled_dot_product|flash_attention|efficient_attention|cudnn_attention)\w*")
_KERNEL = re.compile(r"flash|fmha|attention|cudnn_generated_fort_native_sdpa|sdpa", re.IGNORECASE)
_LONGEST_NAME = 160
# Signs of each backend in these names. cuDNN's kernels have `flash` in theirs, cutlass' have `fmha`.
_OPERATOR_OF = {
    "flash": r"_scaled_dot_product_flash_attention",
    "efficient": r"_scaled_dot_product_efficient_attention",
    "cudnn": r"_scaled_dot_product_cudnn_attention",
    "math": r"_scaled_dot_product_attention_math",
}
_KERNEL_OF = {"cudnn": r"cudnn", "efficient": r"fmha_cutlass|MemEffAttention", "flash": r"flash"}


@dataclass(frozen=True, slots=True)
class Attend:
    """The arguments of one call of scaled dot product attention, under torch's own names."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attn_mask: torch.Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    def describe(self) -> str:
        """E.g. `query [1, 12, 1024, 64] float32, no mask`."""
        dtype = str(self.query.dtype).removeprefix("torch.")
        return f"query {list(self.query.shape)} {dtype}, {'no mask' if self.attn_mask is None else 'masked'}"


class AttentionWatch(TorchFunctionMode):
    """Passes every call of scaled dot product attention made under it to `on_call`."""

    def __init__(self, on_call: Callable[[Attend], None]):
        super().__init__()
        self._on_call = on_call

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look, then let the call through."""
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            self._on_call(Attend(*args, **kwargs))
        return func(*args, **kwargs)


def set_fused(attention: str) -> int | None:
    """Set timm's switch for models built from now on; returns its level, None where timm's default stays.

    0: written-out attention. 2: fused also where timm calls it experimental (Swin, XCiT, Visformer).
    """
    if attention == "auto":
        return None
    from timm.layers.config import set_fused_attn

    is_fused = attention != "unfused"
    set_fused_attn(is_fused, experimental=is_fused)
    return 2 if is_fused else 0


def forced(attention: str) -> contextlib.AbstractContextManager[object]:
    """Only this backend of torch inside; `auto`, `unfused` and `flash-attn` leave the choice to torch."""
    return sdpa_kernel(BACKENDS[attention]) if attention in BACKENDS else contextlib.nullcontext()


def refusal(call: Attend, attention: str) -> str:
    """Why the backend cannot run this call, which would raise if it were forced; empty when it can."""
    ask = _ASK.get(attention)
    if ask is None:
        return ""
    parameters = SDPAParams(
        call.query, call.key, call.value, call.attn_mask, call.dropout_p, call.is_causal, call.enable_gqa
    )
    # torch gives its reasons as Python warnings, or from C++ straight to file descriptor 2
    with tempfile.TemporaryFile() as file, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            if ask(parameters, True):
                return ""
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        raw = [*(str(each.message) for each in caught), *file.read().decode(errors="replace").splitlines()]
    return "; ".join(dict.fromkeys(filter(None, map(_plain, raw)))) or "no reason given by torch"


def _plain(line: str) -> str:
    """A warning of torch without time, source line and function."""
    line = re.sub(r"^\[W\S* \S+ \S+\] (Warning: )?", "", line.strip())
    line = re.sub(r"\s*\((?:function \w+|Triggered internally at [^)]*)\)", "", line)
    return line.strip().rstrip(".")


def load_kernel() -> Kernel:
    """The attention function of the flash-attn package (FlashAttention-2, Dao 2023). Raises MeasureError without it."""
    try:
        kernel: Kernel = importlib.import_module("flash_attn").flash_attn_func
    except ImportError as error:
        text = f"flash-attn does not import ({error}); try: pip install 'luma-seg[flash]'"
        raise MeasureError(text) from error
    return kernel


class FlashAttn(TorchFunctionMode):
    """Redirects the attention calls that the package can run exactly, and counts both kinds."""

    def __init__(self, kernel: Kernel, device_type: str = "cuda"):
        super().__init__()
        self._kernel = kernel
        self._device_type = device_type
        self.num_redirected = 0
        self.num_passed = 0

    def _takes(self, call: Attend) -> bool:
        return (
            call.attn_mask is None
            and call.query.dtype in HALF
            and call.query.device.type == self._device_type
            and call.query.dim() == 4
            and call.query.shape[-1] <= LARGEST_HEAD
            and call.value.shape[-1] == call.query.shape[-1]
            and call.dropout_p == 0
        )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Redirect or let through."""
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        call = Attend(*args, **kwargs)
        if not self._takes(call):
            self.num_passed += 1
            return func(*args, **kwargs)
        self.num_redirected += 1
        # torch has heads before tokens, the package tokens before heads
        tokens_first = (tensor.transpose(1, 2) for tensor in (call.query, call.key, call.value))
        return self._kernel(*tokens_first, softmax_scale=call.scale, causal=call.is_causal).transpose(1, 2)


def attention_kernels(run: Callable[[], object], *, cuda: bool) -> dict[str, dict[str, int]]:
    """How often each attention operator of torch and each attention kernel on the device ran in one call of `run`."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities, acc_events=True) as profiler:
        run()
        if cuda:
            torch.cuda.synchronize()
    operators: dict[str, int] = {}
    kernels: dict[str, int] = {}
    for event in profiler.key_averages():
        on_device = event.device_type.name != "CPU"
        if on_device and _KERNEL.search(event.key):
            kernels[event.key[:_LONGEST_NAME]] = event.count
        elif _OPERATOR.fullmatch(event.key):
            operators[event.key] = event.count
    return {"operators": operators, "kernels": kernels}


def backends_by_operator(found: dict[str, dict[str, int]]) -> set[str]:
    """Backends whose operators ran, of what `attention_kernels` found."""
    return {name for name, sign in _OPERATOR_OF.items() if any(re.search(sign, key) for key in found["operators"])}


def backends_by_kernel(found: dict[str, dict[str, int]]) -> set[str]:
    """Backends whose kernels ran on the device; math has none of its own."""
    firsts = (next((n for n, sign in _KERNEL_OF.items() if re.search(sign, key)), "") for key in found["kernels"])
    return {name for name in firsts if name}
