"""Order statistics of repeated measurements: median, quantiles, and a 95% interval that assumes no distribution.

Source: the interval of a median from order statistics, e.g. Conover, Practical Nonparametric Statistics, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from luma_cli.errors import MeasureError
from luma_cli.store.records import Metric

Comparison = Literal["FASTER", "SLOWER", "AMBIGUOUS"]

# Below six samples no pair of order statistics covers the median with 95%: the interval is then their whole range.
LEAST_FOR_95 = 6


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

    Walks outward from the middle of Binomial(n, 1/2), so it costs about sqrt(n) steps.

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
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2)
    return math.exp(log)


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Low and high end of the interval that covers the median with at least `level`; the range below six samples."""
    ordered = sorted(values)
    low, high = interval_ranks(len(ordered), level)
    return ordered[low], ordered[high]


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95% interval, relative to the median (0.01 is 1%); infinite for a median of zero."""
    low, high = median_interval(values)
    middle = median(values)
    return (high - low) / 2 / middle if middle > 0 else math.inf


def summarise(name: str, unit: str, values: Sequence[float], *, tail: bool = False, noisy: bool = False) -> Metric:
    """The metric that `values` make, raw samples kept; `tail` adds the 90th percentile. Raises MeasureError."""
    if not all(math.isfinite(value) for value in values):
        raise MeasureError(f"{name}: a sample is not a finite number")
    low, high = median_interval(values)
    p90 = quantile(values, 0.9) if tail else None
    return Metric(name, unit, median(values), low, high, len(values), p90, noisy, tuple(values))


def single(name: str, unit: str, value: float) -> Metric:
    """A metric of one reading, such as a peak of memory: its interval is the reading itself."""
    return Metric(name, unit, value, value, value, 1, None, False, (value,))


def compare(a: Metric, b: Metric, *, more_is_better: bool) -> Comparison:
    """Whether `a` is faster than `b`: only when their intervals do not overlap, AMBIGUOUS otherwise.

    >>> compare(single("t", "ms", 2.0), single("t", "ms", 3.0), more_is_better=False)
    'FASTER'
    """
    if a.unit != b.unit:
        raise MeasureError(f"cannot compare {a.name} in {a.unit} with {b.name} in {b.unit}")
    if a.ci_low <= b.ci_high and b.ci_low <= a.ci_high:
        return "AMBIGUOUS"
    return "FASTER" if (a.ci_low > b.ci_high) == more_is_better else "SLOWER"
