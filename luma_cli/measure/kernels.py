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


def _on_device(event: Any) -> bool:
    """Whether the event is a kernel on the device rather than a call on the host."""
    return bool(event.device_type.name != "CPU")
