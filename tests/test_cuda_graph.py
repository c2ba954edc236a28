"""What precedes the capture of a CUDA graph, with torch's device functions stood in for."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from luma_cli.measure.accelerator import capture


class FakeCuda:
    """The parts of torch.cuda that lead up to a capture; a capture itself is an error."""

    def __init__(self) -> None:
        self.mode: Any = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        stream = SimpleNamespace(wait_stream=lambda other: None)
        patch.setattr(torch.cuda, "Stream", lambda: stream)
        patch.setattr(torch.cuda, "current_stream", lambda: stream)
        patch.setattr(torch.cuda, "stream", lambda entered: contextlib.nullcontext())
        patch.setattr(torch.cuda, "get_sync_debug_mode", lambda: self.mode)
        patch.setattr(torch.cuda, "set_sync_debug_mode", self.set_mode)
        patch.setattr(torch.cuda, "graph_pool_handle", lambda: pytest.fail("capture was begun"))

    def set_mode(self, mode: Any) -> None:
        self.mode = mode


def test_a_module_that_waits_is_refused_before_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    modes: list[Any] = []

    def waiting(image: torch.Tensor) -> None:
        modes.append(cuda.mode)
        if cuda.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    with pytest.raises(RuntimeError, match="synchronizing"):
        capture(waiting, [torch.zeros(1)])
    assert modes == [0, 0, 0, "error"]
    assert cuda.mode == 0
