"""The device that a worker measures on: its stopwatch, memory, CUDA graphs and clean-up."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from luma_cli.measure import devices
from luma_cli.measure.devices import find_cuda
from luma_cli.measure.nvml import Gpu, NvmlMissing, load_nvml
from luma_cli.measure.timing import EventStopwatch, Stopwatch

# torch refuses above this share of the GPU, so that it is torch and not the driver that runs out.
LARGEST_SHARE = 0.95
_WARM_CALLS = 3


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peak bytes of a call: in tensors, reserved by the allocator, of this process on the device; None: unknown."""

    allocated: int
    reserved: int | None
    device: int | None
    method: str


class Cpu:
    """The host. Memory is resident memory: its growth since this object was made, and all of it."""

    kind = "cpu"
    torch_device = torch.device("cpu")
    gpu: Gpu | None = None  # NVML's view of a CUDA device

    def __init__(self) -> None:
        gc.collect()  # garbage that is freed later would hide growth
        self._before = devices.resident_bytes()

    def stopwatch(self) -> Stopwatch:
        """The host's clock."""
        return Stopwatch()

    def synchronize(self) -> None:
        """Wait until the device is idle, as the host always is between calls."""

    def tuned(self) -> AbstractContextManager[object]:
        """Inside, libraries may choose their kernels by trial."""
        return contextlib.nullcontext()

    def peaks(self, call: Callable[[], object]) -> Peaks:
        """Peak memory while `call` runs."""
        fresh = devices.reset_peak()
        call()
        peak = devices.peak_bytes()
        return Peaks(max(0, peak - self._before), None, peak, "rss" if fresh else "rss over the process' life")

    def free_bytes(self) -> int:
        """Bytes that can still be allocated."""
        return devices.available_bytes()

    def release(self) -> None:
        """Free what earlier calls left behind."""
        gc.collect()


class Cuda(Cpu):
    """One CUDA device, found by the UUID that NVML knows it under."""

    kind = "cuda"

    def __init__(self, uuid: str) -> None:
        # Before torch touches the device: every process on it now belongs to others.
        with contextlib.suppress(NvmlMissing):
            self.gpu = load_nvml().open(uuid)
        self._used_before = self.gpu.used_bytes() if self.gpu else None
        self._processes_before = set(self.gpu.processes()) if self.gpu else set()
        self._was_ours = bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
        self.torch_device = torch.device("cuda", find_cuda(uuid))
        torch.cuda.set_device(self.torch_device)
        torch.cuda.set_per_process_memory_fraction(LARGEST_SHARE, self.torch_device)

    def stopwatch(self) -> Stopwatch:
        """Events on the current stream."""
        return EventStopwatch(lambda: torch.cuda.Event(enable_timing=True), self.synchronize)  # type: ignore[no-untyped-call]

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize(self.torch_device)

    def tuned(self) -> AbstractContextManager[object]:
        """Benchmark mode of cuDNN. Its choice and workspace stay for the shape: measure memory before."""
        cudnn = torch.backends.cudnn
        return cudnn.flags(enabled=True, benchmark=True, allow_tf32=cudnn.allow_tf32)

    def peaks(self, call: Callable[[], object]) -> Peaks:
        """Peaks of torch's allocator and of the process on the device, after caches are freed."""
        self.release()
        torch.cuda.reset_peak_memory_stats(self.torch_device)
        call()
        self.synchronize()
        allocated = torch.cuda.max_memory_allocated(self.torch_device)
        reserved = torch.cuda.max_memory_reserved(self.torch_device)
        return Peaks(allocated, reserved, *self._device_bytes())

    def _device_bytes(self) -> tuple[int | None, str]:
        """Bytes of this process on the device, and how they were found."""
        if self.gpu is None:
            return None, "no NVML"
        own = self.gpu.processes().get(os.getpid())
        if own is not None:
            return own, "nvml process"
        # in a container the driver may not know our PID
        used = self.gpu.used_bytes()
        if used is None or self._used_before is None:
            return None, "nvml gives no memory"
        return max(0, used - self._used_before), "nvml device delta"

    def other_processes(self) -> int:
        """Compute processes of others on the device, before or now."""
        now = set(self.gpu.processes()) if self.gpu else set()
        return count_others(self._processes_before, now, os.getpid(), was_ours=self._was_ours)

    def free_bytes(self) -> int:
        """Bytes free on the device, within the share that torch may take."""
        free, total = torch.cuda.mem_get_info(self.torch_device)
        reserved = torch.cuda.memory_reserved(self.torch_device)
        return int(min(free + reserved, LARGEST_SHARE * total))

    def release(self) -> None:
        """Drop garbage and the allocator's cache."""
        gc.collect()
        torch.cuda.empty_cache()


def count_others(before: set[int], now: set[int], pid: int, *, was_ours: bool) -> int:
    """Processes of others among those before our context and those now; was_ours: whether our context is older."""
    if pid in now:
        return len((before | now) - {pid})
    # a container's driver knows us under another PID: one process is ours, a new one unless our context is older
    if was_ours:
        return max(0, len(before | now) - 1)
    return len(before) + max(0, len(now - before) - 1)


def capture(module: Callable[[Tensor], Any], inputs: list[Tensor]) -> Callable[[int], None]:
    """A call that replays one CUDA graph per input, in turn; the graphs share their memory.

    Raises what capture raises, and RuntimeError for a module that makes the host wait.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_CALLS):
            module(inputs[0])
        waiting = torch.cuda.get_sync_debug_mode()
        # A wait raises here, before capture: a capture that breaks off leaves the allocator unable to free memory.
        torch.cuda.set_sync_debug_mode("error")
        try:
            module(inputs[0])
        finally:
            torch.cuda.set_sync_debug_mode(waiting)
    torch.cuda.current_stream().wait_stream(side)
    graphs, outputs = [], []
    pool = torch.cuda.graph_pool_handle()
    for tensor in inputs:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            outputs.append(module(tensor))
        graphs.append(graph)

    def replay(number: int, kept: list[Any] = outputs) -> None:  # the outputs are the graphs' memory
        graphs[number % len(graphs)].replay()

    return replay
