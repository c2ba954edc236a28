"""Batch-1 latency under CUDA graphs: what is left of a call when the host no longer launches its kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

_WARM_CALLS = 3


@contextlib.contextmanager
def _no_waiting() -> Iterator[None]:
    """Inside, an operation that makes the host wait for the device raises RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def capture(module: Callable[[Tensor], Any], inputs: list[Tensor]) -> Callable[[int], None]:
    """A call that replays one graph per input, in turn; the graphs share their memory.

    Raises what capture raises, and RuntimeError for a module that makes the host wait. That is found before capture: a
    capture that breaks off leaves the allocator unable to give memory back.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_CALLS):
            module(inputs[0])
        with _no_waiting():
            module(inputs[0])
    torch.cuda.current_stream().wait_stream(side)
    graphs, outputs = [], []
    pool = torch.cuda.graph_pool_handle()
    for tensor in inputs:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            outputs.append(module(tensor))
        graphs.append(graph)

    def replay(number: int, kept: list[Any] = outputs) -> None:
        graphs[number % len(graphs)].replay()

    return replay
