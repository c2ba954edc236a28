"""The device and number format that a model is run on when the user leaves them open."""

from __future__ import annotations

import torch

from luma_cli.errors import UsageError
from luma_cli.measure import devices
from luma_cli.measure.accelerator import find_cuda

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def torch_device(name: str = "auto") -> torch.device:
    """The device `name`, numbered as nvidia-smi does; `auto` is the first GPU, or the CPU without one.

    Raises UsageError for a name that is none, and for a GPU that is not there.
    """
    if name == "auto":
        try:
            return torch_device("cuda")
        except UsageError:
            return torch.device("cpu")
    found = devices.find(name)
    return torch.device("cpu") if found.kind == "cpu" else torch.device("cuda", find_cuda(found.uuid))


def autocast_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format of `fp32`, `bf16` or `fp16`; `auto` is bf16 on a GPU that has it, else fp32."""
    if name == "auto":
        name = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if name not in DTYPES:
        raise UsageError(f"dtype {name!r} is unknown, expected auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, as records say it."""
    return str(dtype).removeprefix("torch.")
