"""Timing of repeated calls: warm up, sample until the median is known to 1%, and find the batch of the plateau.

The clock and the device events come in as a `Stopwatch`, so that the rules can be tested with made-up time. A call is
timed by one pair of device events (or of clock readings on the CPU); the host waits once per round, never inside it.
The interval of a median is from order statistics and assumes no distribution, e.g. Conover, Practical Nonparametric
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
        """Host time in seconds, once the device has nothing left to do."""
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
    """Times calls by events on the device's stream; the host waits once, at the end of a round.

    An untimed call leads each round: without it the first pair of events would span the time in which the device
    waits for the first kernel to be launched. `make_event` makes what torch.cuda.Event is.
    """

    def __init__(
        self,
        make_event: Callable[[], Any],
        synchronize: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ):
        super().__init__(clock)
        self._make_event = make_event
        self._synchronize = synchronize

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
class Warmup:
    """Calls and seconds spent, the first call's seconds, and about the seconds that a call takes once warm."""

    calls: int
    seconds: float
    first_call_seconds: float
    typical_seconds: float


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds of every sampled call, in order, and the warm-up before them."""

    seconds: tuple[float, ...]
    noisy: bool
    warmup: Warmup


def warm_up(call: Call, stopwatch: Stopwatch, rule: Rule) -> Warmup:
    """Call until times settle. A single call longer than the cap ends it."""
    cap = min(rule.warmup_cap, rule.max_seconds)
    start = stopwatch.now()
    medians = stopwatch.round(call, 0, 1)
    first, calls = medians[0], 1
    while (spent := stopwatch.now() - start) < cap:
        last = medians[-rule.warmup_rounds :]
        settled = len(last) == rule.warmup_rounds and max(last) - min(last) <= rule.warmup_drift * min(last)
        if settled and calls >= rule.warmup_calls and spent >= min(rule.warmup_seconds, cap):
            break
        count = _round_size(medians[-1], min(rule.round_seconds, cap - spent))
        medians.append(median(stopwatch.round(call, calls, count)))
        calls += count
    return Warmup(calls, spent, first, medians[-1])


def measure(call: Call, stopwatch: Stopwatch, rule: Rule | None = None) -> Samples:
    """Seconds per call after a warm-up that is not part of them; `noisy` when the cap came before the rule was met."""
    rule = rule or Rule()
    warmup = warm_up(call, stopwatch, rule)
    seconds: list[float] = []
    start, number = stopwatch.now(), warmup.calls
    while True:
        remaining = rule.max_seconds - (stopwatch.now() - start)
        if _precise(seconds, rule):
            return Samples(tuple(seconds), False, warmup)
        if remaining <= 0 and len(seconds) >= rule.least_at_cap:
            return Samples(tuple(seconds), True, warmup)
        typical = median(seconds) if seconds else warmup.typical_seconds
        count = _round_size(typical, min(rule.round_seconds, max(remaining, 0.0)))
        seconds += stopwatch.round(call, number, count)
        number += count


def _round_size(typical_seconds: float, budget_seconds: float) -> int:
    """Calls that fill `budget_seconds`, from 1 to 1000 (events are kept for each)."""
    if typical_seconds <= 0:
        return 1000
    return max(1, min(1000, int(budget_seconds / typical_seconds)))


def _precise(seconds: list[float], rule: Rule) -> bool:
    """Whether there are enough samples, over enough time, that agree on the median."""
    if len(seconds) < rule.least_calls or math.fsum(seconds) < min(rule.least_seconds, rule.max_seconds):
        return False
    low, high = median_interval(seconds)
    middle = median(seconds)
    return middle > 0 and (high - low) / 2 <= rule.half_width * middle


def quantile(values: Sequence[float], q: float) -> float:
    """The `q` quantile (0 to 1) of `values`, linear between neighbours. Raises MeasureError without values."""
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
    """Ranks (from 0) of the two order statistics of `n` samples that cover the median with at least `level`.

    Walks outward from the middle of Binomial(n, 1/2), so it costs about sqrt(n) steps. Below six samples no pair
    covers the median with 95%: the ranks are then of their whole range.

    >>> interval_ranks(30)
    (9, 20)
    """
    if n < 1:
        raise MeasureError("no samples: nothing was timed")
    low = (n - 1) // 2  # the pair (x_low, x_{n-1-low}) covers with P(low < B <= n - 1 - low), B ~ Binomial(n, 1/2)
    covered = math.fsum(_half_binomial(n, k) for k in range(low + 1, n - low))
    while covered < level and low > 0:
        covered += 2 * _half_binomial(n, low)
        low -= 1
    return low, n - 1 - low


def _half_binomial(n: int, k: int) -> float:
    """P(B = k) for B ~ Binomial(n, 1/2)."""
    return math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Low and high end of the interval that covers the median with at least `level`; the range below six samples."""
    ordered = sorted(values)
    low, high = interval_ranks(len(ordered), level)
    return ordered[low], ordered[high]


def summarise(name: str, unit: str, values: Sequence[float], *, tail: bool = False, noisy: bool = False) -> Metric:
    """The metric that `values` make, raw samples kept; `tail` adds the 90th percentile. Raises MeasureError."""
    if not all(math.isfinite(value) for value in values):
        raise MeasureError(f"{name}: a sample is not a finite number")
    low, high = median_interval(values)
    p90 = quantile(values, 0.9) if tail else None
    return Metric(name, unit, median(values), low, high, len(values), p90, noisy, tuple(values))


@dataclass(frozen=True, slots=True)
class Trial:
    """Result of one batch. `oom` trials have no rate; `bytes_peak` is None where it was not measured."""

    batch: int
    outcome: Literal["ok", "oom"]
    images_per_second: float = 0.0
    bytes_peak: int | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the search: batch, memory in bytes, elements per image of the largest tensor, seconds per call."""

    largest_batch: int = 1024
    free_bytes: int | None = None
    memory_share: float = 0.85
    numel_per_image: int = 1
    call_seconds: float = 5.0
    tolerance: float = 0.02


@dataclass(frozen=True, slots=True)
class Plateau:
    """The chosen batch, all trials, the memory fit (bytes at batch 0, bytes per image), what ended the search."""

    batch: int
    trials: tuple[Trial, ...]
    stopped_by: str
    memory_intercept: float | None
    memory_slope: float | None


# 32-bit indices: a tensor with more elements leaves torch's fast kernels ("canUse32BitIndexMath").
LARGEST_NUMEL = 2**31 - 1


def search(try_batch: Callable[[int], Trial], bounds: Bounds) -> Plateau:
    """The smallest batch whose throughput is within 2% of the best: doubled while it pays, and while memory lasts.

    Memory is taken as m0 + m1 * batch, fitted to the first two batches, so that the search stops before memory does.
    After running out all the same, one batch between the last two is tried. The rate found must be measured again with
    new samples: the best of noisy candidates is biased upward. `try_batch` must return an `oom` trial, not raise, when
    memory runs out. Raises MeasureError when batch 1 does.
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
    return Plateau(smallest_near_best(trials, bounds.tolerance), tuple(trials), stopped_by, *memory_fit(trials))


def _back_off(trials: list[Trial], try_batch: Callable[[int], Trial]) -> list[Trial]:
    """One trial between the last batch that fitted and the one that did not, a multiple of 8 where there is one."""
    if len(trials) < 2:
        raise MeasureError("out of memory at batch 1; try a lower --res or --dtype bfloat16")
    fitted = trials[-2].batch
    between = fitted * 3 // 2
    between -= between % 8 if between >= 16 else 0
    return [try_batch(between)] if between > fitted else []


def _reason_to_stop(trials: list[Trial], batch: int, bounds: Bounds) -> str:
    """Why `batch` is not worth or not safe to try; empty when it is."""
    if batch > bounds.largest_batch:
        return f"batch limit {bounds.largest_batch}"
    if batch * bounds.numel_per_image > LARGEST_NUMEL:
        return "a tensor would pass 2^31 elements"
    intercept, slope = memory_fit(trials)
    needed = 0.0 if intercept is None or slope is None else intercept + slope * batch
    if bounds.free_bytes is not None and needed > bounds.memory_share * bounds.free_bytes:
        return "memory"
    if batch / trials[-1].images_per_second > bounds.call_seconds:
        return f"a call would take more than {bounds.call_seconds:g} s"
    best_before = max((trial.images_per_second for trial in trials[:-2]), default=0.0)
    paid = max(trial.images_per_second for trial in trials[-2:]) > best_before * (1 + bounds.tolerance)
    # Two doublings in a row without gain: one alone may be an unlucky tile size.
    return "" if paid or len(trials) < 3 else "no gain from two doublings"


def memory_fit(trials: list[Trial]) -> tuple[float | None, float | None]:
    """Bytes at batch 0 and bytes per image, least squares over the batches whose peak is known."""
    known = [(t.batch, t.bytes_peak) for t in trials if t.bytes_peak is not None]
    if len(known) < 2:
        return None, None
    slope, intercept = linear_regression(*zip(*known, strict=True))
    return intercept, slope


def smallest_near_best(trials: list[Trial], tolerance: float) -> int:
    """The smallest batch within `tolerance` of the best rate."""
    fitted = [trial for trial in trials if trial.outcome == "ok"]
    best = max(trial.images_per_second for trial in fitted)
    return min(trial.batch for trial in fitted if trial.images_per_second >= best * (1 - tolerance))
