"""Timing of repeated calls: warm up, sample until the median is known to 1%, and find the plateau batch.

A call is timed by one pair of device events (or of clock readings on the CPU); the host waits once per round. The
interval of a median is from order statistics and assumes no distribution, e.g. Conover, Practical Nonparametric
Statistics, section 3.2. Imports no torch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import linear_regression
from typing import Any, Literal

from luma_cli.errors import MeasureError
from luma_cli.store.records import Metric

Call = Callable[[int], object]  # takes the number of the call, which picks the input


class Stopwatch:
    """Times calls that are over when they return, by the host's clock."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock

    def now(self) -> float:
        """Host time in seconds, once the device is idle."""
        return self._clock()

    def round(self, call: Call, first: int, count: int) -> list[float]:
        """Seconds of each of `count` calls `call(first)`, `call(first + 1)`, ...; returns when all are done."""
        seconds = []
        for number in range(first, first + count):
            start = self._clock()
            call(number)
            seconds.append(self._clock() - start)
        return seconds


class EventStopwatch(Stopwatch):
    """Times calls by events on the device's stream, made by `make_event`; the host waits at the end of a round."""

    def __init__(self, make_event: Callable[[], Any], synchronize: Callable[[], None]):
        super().__init__()
        self._make_event = make_event
        self._synchronize = synchronize

    def now(self) -> float:
        """Host time in seconds, once the device is idle."""
        self._synchronize()
        return self._clock()

    def round(self, call: Call, first: int, count: int) -> list[float]:
        """Seconds of each call, by one pair of events around it."""
        pairs = [(self._make_event(), self._make_event()) for _ in range(count)]
        if first > 0:  # an untimed lead: else the first pair would span the wait for the first launch
            call(first - 1)
        for number, (start, end) in enumerate(pairs, first):
            start.record()
            call(number)
            end.record()
        self._synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairs]


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
class Timing:
    """Seconds of every sampled call, in order; `noisy` when the time limit came before the rule was met."""

    seconds: tuple[float, ...]
    noisy: bool


def warm_up(call: Call, stopwatch: Stopwatch, rule: Rule) -> tuple[int, float]:
    """Call until times settle or the cap is reached. Returns the number of calls and typical seconds of a call."""
    cap = min(rule.warmup_cap, rule.max_seconds)
    start = stopwatch.now()
    medians, calls = stopwatch.round(call, 0, 1), 1
    while (spent := stopwatch.now() - start) < cap:
        last = medians[-rule.warmup_rounds :]
        settled = len(last) == rule.warmup_rounds and max(last) - min(last) <= rule.warmup_drift * min(last)
        if settled and calls >= rule.warmup_calls and spent >= min(rule.warmup_seconds, cap):
            break
        count = _round_size(medians[-1], min(rule.round_seconds, cap - spent))
        medians.append(median(stopwatch.round(call, calls, count)))
        calls += count
    return calls, medians[-1]


def measure(call: Call, stopwatch: Stopwatch, rule: Rule = Rule()) -> Timing:  # noqa: B008  (frozen)
    """Seconds per call by `rule`, after a warm-up that is left out."""
    number, typical = warm_up(call, stopwatch, rule)
    seconds: list[float] = []
    start = stopwatch.now()
    while True:
        remaining = rule.max_seconds - (stopwatch.now() - start)
        is_precise = _is_precise(seconds, rule)
        if is_precise or (remaining <= 0 and len(seconds) >= rule.least_at_cap):
            return Timing(tuple(seconds), not is_precise)
        typical = median(seconds) if seconds else typical
        count = _round_size(typical, min(rule.round_seconds, max(remaining, 0.0)))
        seconds += stopwatch.round(call, number, count)
        number += count


def _round_size(typical_seconds: float, budget_seconds: float) -> int:
    """Calls that fill `budget_seconds`, from 1 to 1000 (events are kept for each)."""
    if typical_seconds <= 0:
        return 1000
    return max(1, min(1000, int(budget_seconds / typical_seconds)))


def _is_precise(seconds: list[float], rule: Rule) -> bool:
    if len(seconds) < rule.least_calls or math.fsum(seconds) < min(rule.least_seconds, rule.max_seconds):
        return False
    low, high = median_interval(seconds)
    middle = median(seconds)
    return middle > 0 and (high - low) / 2 <= rule.half_width * middle


def quantile(values: Sequence[float], q: float) -> float:
    """The `q` quantile of `values`, linear between neighbours. Raises MeasureError without values."""
    if not values:
        raise MeasureError("no samples: nothing was timed")
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    if ordered[low] == ordered[high]:
        return ordered[low]
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def median(values: Sequence[float]) -> float:
    """The median of `values`, in their unit. Raises MeasureError without values."""
    return quantile(values, 0.5)


def interval_ranks(n: int, level: float = 0.95) -> tuple[int, int]:
    """Ranks (from 0) of the two of `n` ordered samples that cover the median with at least `level`.

    Below six samples no pair reaches 95%: the ranks are then of the whole range. Raises MeasureError without samples.

    >>> interval_ranks(30)
    (9, 20)
    """
    if n < 1:
        raise MeasureError("no samples: nothing was timed")
    # The pair (x_low, x_{n-1-low}) covers with P(low < B <= n - 1 - low), B ~ Binomial(n, 1/2). Outward from the
    # middle this takes about sqrt(n) steps.
    low = (n - 1) // 2
    covered = math.fsum(_half_binomial(n, k) for k in range(low + 1, n - low))
    while covered < level and low > 0:
        covered += 2 * _half_binomial(n, low)
        low -= 1
    return low, n - 1 - low


def _half_binomial(n: int, k: int) -> float:
    """P(B = k) for B ~ Binomial(n, 1/2)."""
    return math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Both ends of the interval that covers the median with at least `level`; the range below six samples."""
    ordered = sorted(values)
    low, high = interval_ranks(len(ordered), level)
    return ordered[low], ordered[high]


def summarise(name: str, unit: str, values: Sequence[float], *, tail: bool = False, noisy: bool = False) -> Metric:
    """The metric of `values`; `tail` adds the 90th percentile. Raises MeasureError for no values or no numbers."""
    if not all(math.isfinite(value) for value in values):
        raise MeasureError(f"{name}: a sample is not a finite number")
    low, high = median_interval(values)
    p90 = quantile(values, 0.9) if tail else None
    return Metric(name, unit, median(values), low, high, len(values), p90, noisy, tuple(values))


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of one batch; `oom` trials have no rate, `bytes_peak` is None if it was not measured."""

    batch: int
    outcome: Literal["ok", "oom"]
    images_per_second: float = 0.0
    bytes_peak: int | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the search: batch, memory in bytes, elements per image of the largest tensor, seconds per call."""

    largest_batch: int = 1024
    free_bytes: int | None = None
    numel_per_image: int = 1
    call_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Plateau:
    """The chosen batch, all trials, why the search ended, and the memory fit: bytes at batch 0 and bytes per image."""

    batch: int
    trials: tuple[Trial, ...]
    stopped_by: str
    memory_intercept: float | None
    memory_slope: float | None


# 32-bit indices: a tensor with more elements leaves torch's fast kernels ("canUse32BitIndexMath").
LARGEST_NUMEL = 2**31 - 1
_MEMORY_SHARE = 0.85  # of what is free; the rest covers a fit from small batches
_TOLERANCE = 0.02  # rates this near to the best count as equal


def search(try_batch: Callable[[int], Trial], bounds: Bounds) -> Plateau:
    """The smallest batch whose throughput is within 2% of the best: doubled while it pays, and while memory lasts.

    Measure its rate again with new samples: the best of noisy candidates is biased upward. `try_batch` must return an
    `oom` trial when memory runs out. Raises MeasureError when that happens at batch 1.
    """
    trials: list[Trial] = []
    batch, stopped_by = 1, ""
    while not stopped_by:
        trials.append(try_batch(batch))
        if trials[-1].outcome == "oom":
            trials += _back_off(trials, try_batch)
            stopped_by = "out of memory"
        else:
            batch *= 2
            stopped_by = _reason_to_stop(trials, batch, bounds)
    return Plateau(smallest_near_best(trials), tuple(trials), stopped_by, *memory_fit(trials))


def _back_off(trials: list[Trial], try_batch: Callable[[int], Trial]) -> list[Trial]:
    """One trial between the last two batches, at a multiple of 8 if there is one."""
    if len(trials) < 2:
        raise MeasureError("out of memory at batch 1; try a lower --res or --dtype bfloat16")
    fitted = trials[-2].batch
    between = fitted * 3 // 2
    between -= between % 8 if between >= 16 else 0
    return [try_batch(between)] if between > fitted else []


def _reason_to_stop(trials: list[Trial], batch: int, bounds: Bounds) -> str:
    """Why not to try `batch`; empty if it should be tried."""
    if batch > bounds.largest_batch:
        return f"batch limit {bounds.largest_batch}"
    if batch * bounds.numel_per_image > LARGEST_NUMEL:
        return "a tensor would pass 2^31 elements"
    intercept, slope = memory_fit(trials)
    needed = 0.0 if intercept is None or slope is None else intercept + slope * batch
    if bounds.free_bytes is not None and needed > _MEMORY_SHARE * bounds.free_bytes:
        return "memory"
    if batch / trials[-1].images_per_second > bounds.call_seconds:
        return f"a call would take more than {bounds.call_seconds:g} s"
    best_before = max((trial.images_per_second for trial in trials[:-2]), default=0.0)
    paid = max(trial.images_per_second for trial in trials[-2:]) > best_before * (1 + _TOLERANCE)
    # Two doublings in a row without gain: one alone may be an unlucky tile size.
    return "" if paid or len(trials) < 3 else "no gain from two doublings"


def memory_fit(trials: list[Trial]) -> tuple[float | None, float | None]:
    """Bytes at batch 0 and bytes per image, by least squares; None from fewer than two known peaks."""
    known = [(t.batch, t.bytes_peak) for t in trials if t.bytes_peak is not None]
    if len(known) < 2:
        return None, None
    slope, intercept = linear_regression(*zip(*known, strict=True))
    return intercept, slope


def smallest_near_best(trials: list[Trial]) -> int:
    """The smallest batch whose rate is within 2% of the best."""
    fitted = [trial for trial in trials if trial.outcome == "ok"]
    best = max(trial.images_per_second for trial in fitted)
    return min(trial.batch for trial in fitted if trial.images_per_second >= best * (1 - _TOLERANCE))
