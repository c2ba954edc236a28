"""The two stopwatches: the host's clock for the CPU, one pair of device events per call for CUDA."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from luma_cli.measure.timing import Call


class DeviceEvent(Protocol):
    """A point on a device's stream, as torch.cuda.Event has it."""

    def record(self) -> None:
        """Mark the point."""

    def elapsed_time(self, end_event: Any, /) -> float:
        """Milliseconds to `end_event`, another of the kind."""


class HostStopwatch:
    """Times calls that are over when they return."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock

    def now(self) -> float:
        """Host time in seconds."""
        return self._clock()

    def round(self, call: Call, first: int, count: int) -> list[float]:
        """Seconds of each call, by the host's clock."""
        seconds = []
        for number in range(first, first + count):
            start = self._clock()
            call(number)
            seconds.append(self._clock() - start)
        return seconds


class EventStopwatch:
    """Times calls by events on the device's stream; the host waits once, at the end of a round.

    An untimed call leads each round: without it the first pair of events would span the time in which the device
    waits for the first kernel to be launched.
    """

    def __init__(
        self,
        make_event: Callable[[], DeviceEvent],
        synchronize: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ):
        self._make_event = make_event
        self._synchronize = synchronize
        self._clock = clock

    def now(self) -> float:
        """Host time in seconds, once the device has nothing left to do."""
        self._synchronize()
        return self._clock()

    def round(self, call: Call, first: int, count: int) -> list[float]:
        """Seconds of each call, by one pair of events around it."""
        pairs = [(self._make_event(), self._make_event()) for _ in range(count)]
        if first > 0:
            call(first - 1)
        for number, (start, end) in enumerate(pairs, first):
            start.record()
            call(number)
            end.record()
        self._synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]
