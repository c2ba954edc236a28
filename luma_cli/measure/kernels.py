"""Which attention kernels really ran in one forward pass, by the names that the profiler saw."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_OPERATOR = re.compile(r"aten::_?(scaled_dot_product|flash_attention|efficient_attention|cudnn_attention)\w*")
_KERNEL = re.compile(r"flash|fmha|attention|cudnn_generated_fort_native_sdpa|sdpa", re.IGNORECASE)
_LONGEST_NAME = 160
# What tells the backends of attention apart. cuDNN's kernels have `flash` in their names, cutlass' have `fmha`.
_OPERATOR_OF = {
    "flash": r"_scaled_dot_product_flash_attention",
    "efficient": r"_scaled_dot_product_efficient_attention",
    "cudnn": r"_scaled_dot_product_cudnn_attention",
    "math": r"_scaled_dot_product_attention_math",
}
_KERNEL_OF = {"cudnn": r"cudnn", "efficient": r"fmha_cutlass|MemEffAttention", "flash": r"flash"}


def attention_kernels(run: Callable[[], object], *, cuda: bool) -> dict[str, dict[str, int]]:
    """Operators and device kernels of attention in one call of `run`, each with how often it ran.

    `operators` are torch's own (on the CPU they name the kernel too), `kernels` the names on the device.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities, acc_events=True) as profiler:
        run()
        if cuda:
            torch.cuda.synchronize()
    operators: dict[str, int] = {}
    kernels: dict[str, int] = {}
    for event in profiler.key_averages():
        if _on_device(event) and _KERNEL.search(event.key):
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


def _on_device(event: Any) -> bool:
    """Whether the event is a kernel on the device rather than a call on the host."""
    return bool(event.device_type.name != "CPU")
