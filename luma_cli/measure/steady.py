"""Measurements under watched clocks: repeated while the GPU is too hot, flagged when that does not help."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from luma_cli.measure import sampler
from luma_cli.measure.nvml import DISCARDING, Gpu

T = TypeVar("T")

MOST_RETRIES = 3
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Watched(Generic[T]):
    """A measurement with the trace of the GPU beneath it."""

    value: T
    throttled: bool
    num_retries: int
    trace: dict[str, Any]


def watched(
    measure: Callable[[], T],
    gpu: Gpu,
    *,
    sampling: Callable[[str], AbstractContextManager[sampler.Samples]] = sampler.sampling,
    sleep: Callable[[float], None] = time.sleep,
) -> Watched[T]:
    """Measure; when heat or a hardware limit slowed the GPU meanwhile, cool and measure again, at most three times."""
    num_retries = 0
    while True:
        before = gpu.violations_ns()
        with sampling(gpu.uuid) as samples:
            value = measure()
        hot = sampler.throttled(samples)
        if hot and num_retries < MOST_RETRIES:
            num_retries += 1
            cool(gpu, sleep)
            continue
        trace = {**sampler.summary(samples), "violations_ns": _lost(before, gpu.violations_ns())}
        return Watched(value, hot, num_retries, trace)


def cool(gpu: Gpu, sleep: Callable[[float], None]) -> None:
    """Wait until the GPU gives no reason to discard, in pauses that grow from 50 ms to 0.5 s, at most 10 s in all."""
    pause, waited = _FIRST_PAUSE_SECONDS, 0.0
    while waited < _LONGEST_WAIT_SECONDS:
        sleep(pause)
        waited += pause
        if not (gpu.reasons() or 0) & DISCARDING:
            return
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _lost(before: dict[str, int | None], after: dict[str, int | None]) -> dict[str, int | None]:
    """Nanoseconds lost between two readings of the violation counters."""
    lost: dict[str, int | None] = {}
    for name, start in before.items():
        end = after.get(name)
        lost[name] = None if start is None or end is None else end - start
    return lost
