"""What only torch can tell about the place of a measurement: flags and library builds."""

from __future__ import annotations

import os
from typing import Any

import torch


def torch_provenance(device: torch.device) -> dict[str, Any]:
    """Flags and versions that can move a number, as they are set now."""
    found: dict[str, Any] = {
        "torch_build": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],  # other work on the host slows threads that wait for each other
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "mkldnn": torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type != "cuda":
        return found
    properties = torch.cuda.get_device_properties(device)
    return found | {
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "cudnn_benchmark_for_timing": True,
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cuda_runtime": torch.version.cuda,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "num_multiprocessors": properties.multi_processor_count,
        "device_memory_bytes": properties.total_memory,
        "triton": _triton(),
        "allocator": torch.cuda.get_allocator_backend(),
    }


def _triton() -> str:
    """Version of triton, empty without it."""
    import importlib.metadata

    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return ""
