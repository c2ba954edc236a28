"""A mean with Student's 90% interval, for a handful of independent values."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from statistics import fmean, stdev

from luma_cli.findings.finding import Interval
from luma_cli.findings.resample import TAIL, student_quantile

# Below it the quantile is so large that the interval says nothing.
FEWEST_VALUES = 4


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The mean; no ends below FEWEST_VALUES values, None without any.

    >>> mean_interval([1.0, 2.0])
    Interval(value=1.5, low=None, high=None)
    """
    if not values:
        return None
    mean = fmean(values)
    if len(values) < FEWEST_VALUES:
        return Interval(mean)
    half = student_quantile(1 - TAIL, len(values) - 1) * stdev(values) / sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def ratio_interval(values: Sequence[float]) -> Interval | None:
    """The geometric mean of positive values, its interval from their logarithms."""
    found = mean_interval([log(value) for value in values])
    if found is None or found.low is None or found.high is None:
        return None if found is None else Interval(exp(found.value))
    return Interval(exp(found.value), exp(found.low), exp(found.high))
