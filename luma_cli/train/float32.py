"""Whole float32, whatever autocast and the matrix multiplications of the model are set to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch


@contextmanager
def whole_float32(device: torch.device) -> Iterator[None]:
    """Neither autocast nor TF32 or bfloat16 inside of products; what was set before comes back.

    torch has the setting twice, per backend and for all, and refuses to say the latter where the two disagree.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    each = [backend.fp32_precision for backend in backends]
    common = None
    with suppress(RuntimeError):
        common = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if common is not None:
            torch.set_float32_matmul_precision(common)
        for backend, precision in zip(backends, each, strict=True):
            backend.fp32_precision = precision
