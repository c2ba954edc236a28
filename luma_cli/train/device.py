"""The device of a training process, and the number format of its passes."""

from __future__ import annotations

import torch

from luma_cli.catalogue.recipes import Dtype
from luma_cli.errors import UsageError
from luma_cli.evaluate.inference import autocast_dtype as evaluation_dtype
from luma_cli.measure import devices
from luma_cli.train.processes import Processes


def find_device(name: str, processes: Processes) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` means for this process: of several each takes its own GPU.

    Raises UsageError for CUDA without a GPU, and for more processes on this machine than GPUs.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {name} is unknown, expected auto, cpu or cuda")
    present = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not present):
        return torch.device("cpu")
    if not present:
        raise UsageError("--device cuda, but torch sees no GPU here; try --device cpu, or see `luma doctor`")
    if processes.local_rank >= present:
        raise UsageError(
            f"process {processes.local_rank + 1} of this machine needs a GPU of its own, but {present} are here; "
            f"start torchrun with --nproc_per_node {present}, or give --device cpu"
        )
    device = torch.device("cuda", processes.local_rank)
    torch.cuda.set_device(device)
    return device


def autocast_dtype(dtype: Dtype, device: torch.device) -> torch.dtype | None:
    """The number format of the passes, None for float32. Raises UsageError where the device does not train in it."""
    if dtype == "fp16" and device.type == "cpu":
        raise UsageError("--dtype fp16 trains on a GPU alone; on the CPU use bf16 or fp32")
    found = evaluation_dtype(dtype, device)
    return None if found == torch.float32 else found


def peak_bytes(device: torch.device) -> int:
    """Peak memory so far: of torch's allocator on a GPU, of the whole process on a CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else devices.lifetime_peak_bytes()
