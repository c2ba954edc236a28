"""Timing of repeated calls: warm up until stable, then sample until the median is known to 1%.

The clock and the device events come in as a `Stopwatch`, so that the rules can be tested with made-up time. A call is
timed by one pair of device events (or of clock readings on the CPU); the host waits once per round, never inside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from luma_cli.errors import MeasureError
from luma_cli.measure.statistics import half_width, median

Call = Callable[[int], object]  # takes the number of the call, which picks the input


class Stopwatch(Protocol):
    """Times calls on a device."""

    def now(self) -> float:
        """Host time in seconds."""

    def round(self, call: Call, first: int, count: int) -> list[float]:
        """Seconds of each of `count` calls `call(first)`, `call(first + 1)`, ...; returns when all are done."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When warm-up and sampling end. Fractions are of the median, times in seconds.

    Warm-up: at least 3 calls and 0.5 s, until the medians of the last 5 rounds differ by less than 1%, at most 5 s.
    Sampling: at least 30 samples and 1 s, then until half the 95% interval is within 1%, at most `max_seconds`.
    """

    max_seconds: float = 10.0
    least_calls: int = 30
    least_seconds: float = 1.0
    half_width: float = 0.01
    least_at_cap: int = 3
    warmup_calls: int = 3
    warmup_seconds: float = 0.5
    warmup_drift: float = 0.01
    warmup_rounds: int = 5
    warmup_cap: float = 5.0
    round_seconds: float = 0.1

    def __post_init__(self) -> None:
        if not (self.max_seconds > 0 and math.isfinite(self.max_seconds)):
            raise MeasureError(f"max seconds is {self.max_seconds}, expected more than 0; try --max-seconds 10")


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds of every sampled call, in order, and what the warm-up before them took."""

    seconds: tuple[float, ...]
    noisy: bool
    warmup_calls: int
    warmup_seconds: float
    first_call_seconds: float


@dataclass(frozen=True, slots=True)
class Warmup:
    """Calls and seconds spent, the first call's seconds, and the number of calls that make a round."""

    calls: int
    seconds: float
    first_call_seconds: float
    typical_seconds: float


def warm_up(call: Call, stopwatch: Stopwatch, rule: Rule) -> Warmup:
    """Call until times settle. A single call longer than the cap ends it."""
    cap = min(rule.warmup_cap, rule.max_seconds)
    start = stopwatch.now()
    medians = stopwatch.round(call, 0, 1)
    first, calls = medians[0], 1
    while (spent := stopwatch.now() - start) < cap:
        if calls >= rule.warmup_calls and spent >= min(rule.warmup_seconds, cap) and _settled(medians, rule):
            break
        count = _round_size(medians[-1], min(rule.round_seconds, cap - spent))
        medians.append(median(stopwatch.round(call, calls, count)))
        calls += count
    return Warmup(calls, spent, first, medians[-1])


def _settled(medians: list[float], rule: Rule) -> bool:
    """Whether the medians of the last rounds differ by less than the drift allowed."""
    last = medians[-rule.warmup_rounds :]
    return len(last) == rule.warmup_rounds and max(last) - min(last) <= rule.warmup_drift * min(last)


def _round_size(typical_seconds: float, budget_seconds: float) -> int:
    """Calls that fill `budget_seconds`, from 1 to 1000 (events are kept for each)."""
    if typical_seconds <= 0:
        return 1000
    return max(1, min(1000, int(budget_seconds / typical_seconds)))


def measure(call: Call, stopwatch: Stopwatch, rule: Rule | None = None) -> Samples:
    """Seconds per call after a warm-up that is not part of them; `noisy` when the cap came before the rule was met."""
    rule = rule or Rule()
    warmup = warm_up(call, stopwatch, rule)
    seconds: list[float] = []
    start, number = stopwatch.now(), warmup.calls
    while True:
        remaining = rule.max_seconds - (stopwatch.now() - start)
        if _precise(seconds, rule):
            return _samples(seconds, warmup, noisy=False)
        if remaining <= 0 and len(seconds) >= rule.least_at_cap:
            return _samples(seconds, warmup, noisy=True)
        typical = median(seconds) if seconds else warmup.typical_seconds
        count = _round_size(typical, min(rule.round_seconds, max(remaining, 0.0)))
        seconds += stopwatch.round(call, number, count)
        number += count


def _precise(seconds: list[float], rule: Rule) -> bool:
    """Whether there are enough samples, over enough time, that agree on the median."""
    enough = len(seconds) >= rule.least_calls and math.fsum(seconds) >= min(rule.least_seconds, rule.max_seconds)
    return enough and half_width(seconds) <= rule.half_width


def _samples(seconds: list[float], warmup: Warmup, *, noisy: bool) -> Samples:
    """The samples with their warm-up."""
    return Samples(tuple(seconds), noisy, warmup.calls, warmup.seconds, warmup.first_call_seconds)
