"""Energy per image from the GPU's own counter, over windows of steady load. Imports no torch.

The counter moves every 20 to 100 ms and some GPUs watch their power only part of the time (arXiv 2312.02741), so a
window lasts 10 s or more, a second one starts at another phase, and both readings are kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

IDLE_SECONDS = 1.0
PHASE_SHIFT_SECONDS = 0.037
NUM_WINDOWS = 2
_BURST_SECONDS = 0.25  # the host waits for the device this often, so that the window ends when it should


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules per image of each window, with and without the idle power in W before them."""

    gross: tuple[float, ...]
    net: tuple[float, ...]
    idle_watts: float
    window_seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """The work: `call(number)` queues one batch, `synchronize` waits for it, `call_seconds` is about what it takes."""

    call: Callable[[int], object]
    synchronize: Callable[[], None]
    batch: int
    call_seconds: float


def measure(
    load: Load,
    read_millijoules: Callable[[], int | None],
    *,
    window_seconds: float = 10.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy | None:
    """Energy per image, or None when the counter is missing or stands still."""
    idle_watts = _idle_watts(read_millijoules, clock, sleep)
    if idle_watts is None:
        return None
    gross, net = [], []
    for _ in range(NUM_WINDOWS):
        sleep(PHASE_SHIFT_SECONDS)
        joules, seconds, num_images = _window(load, read_millijoules, window_seconds, clock)
        if joules <= 0:
            return None
        gross.append(joules / num_images)
        net.append(max(0.0, joules - idle_watts * seconds) / num_images)
    return Energy(tuple(gross), tuple(net), idle_watts, window_seconds)


def _idle_watts(
    read: Callable[[], int | None], clock: Callable[[], float], sleep: Callable[[float], None]
) -> float | None:
    """Mean power in W while nothing runs; None without a counter."""
    before, start = read(), clock()
    sleep(IDLE_SECONDS)
    after, end = read(), clock()
    if before is None or after is None or end <= start:
        return None
    return (after - before) / 1e3 / (end - start)


def _window(
    load: Load, read: Callable[[], int | None], window_seconds: float, clock: Callable[[], float]
) -> tuple[float, float, int]:
    """Joules, seconds and images of one window of back-to-back calls."""
    per_burst = max(1, int(_BURST_SECONDS / max(load.call_seconds, 1e-6)))
    load.call(0)
    load.synchronize()
    before, start = read(), clock()
    num_calls = 0
    while clock() - start < window_seconds:
        for number in range(num_calls, num_calls + per_burst):
            load.call(number)
        load.synchronize()
        num_calls += per_burst
    after, end = read(), clock()
    if before is None or after is None:
        return 0.0, end - start, num_calls * load.batch
    return (after - before) / 1e3, end - start, num_calls * load.batch
