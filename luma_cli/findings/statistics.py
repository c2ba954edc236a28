"""Intervals and correlations that respect where figures come from.

Figures of one source share its code, its schedule and its mistakes, so they are not independent. The cluster bootstrap
(Cameron, Gelbach and Miller 2008, https://doi.org/10.1162/rest.90.3.414) draws whole sources with replacement.
Percentiles of few clusters are too narrow, so they are taken further out: the expanded percentile interval of
Hesterberg (2015, https://doi.org/10.1080/00031305.2015.1089789). A handful of independent values has Student's
interval.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

from luma_cli.findings.finding import Interval

Numbers = NDArray[np.float64]

NUM_DRAWS = 2000
SEED = 0
TAIL = 0.05
# Fewer clusters give intervals that are far too narrow, so there is none.
FEWEST_CLUSTERS = 4
# Below it Student's quantile is so large that the interval says nothing.
FEWEST_VALUES = 4
# A statistic may be undefined in a draw that misses most sources; with more than this share there is no interval.
_MOST_UNDEFINED = 0.05
# Deviations smaller than this part of the values are rounding, and a correlation of rounding means nothing.
_ROUNDING = 1e-12


def multiplicities(num_clusters: int, num_draws: int = NUM_DRAWS, seed: int = SEED) -> Numbers:
    """How often each cluster was drawn, [num_draws, num_clusters]; every row sums to num_clusters."""
    even = np.full(num_clusters, 1 / num_clusters)
    return np.random.default_rng(seed).multinomial(num_clusters, even, size=num_draws).astype(np.float64)


def cluster_interval(clusters: Sequence[Hashable], statistic: Callable[[Numbers], Numbers]) -> Interval | None:
    """The statistic on all rows with its 90% percentile interval.

    statistic: from weights [draws, rows] to one number a draw, NaN where undefined; weights are how often a row's
    cluster was drawn. No ends with fewer than FEWEST_CLUSTERS clusters. None when undefined on all rows.
    """
    names = sorted(set(clusters), key=str)  # so that the order of the rows does not matter
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(np.ones((1, len(clusters))))[0]) if names else float("nan")
        if not np.isfinite(value):
            return None
        if len(names) < FEWEST_CLUSTERS:
            return Interval(value)
        at = {name: index for index, name in enumerate(names)}
        drawn = statistic(multiplicities(len(names))[:, [at[cluster] for cluster in clusters]])
    return percentiles(value, drawn, expanded_tail(len(names)))


def percentiles(value: float, drawn: Numbers, tail: float = TAIL) -> Interval:
    """The value between the `tail` and `1 - tail` quantiles of the draws; no ends where too many are undefined."""
    sound = drawn[np.isfinite(drawn)]
    if len(sound) < (1 - _MOST_UNDEFINED) * len(drawn):
        return Interval(value)
    low, high = np.quantile(sound, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def expanded_tail(num_clusters: int) -> float:
    """The probability below which the bootstrap of so many clusters is cut for a 90% interval; 5% of infinitely many.

    >>> round(expanded_tail(10), 3)
    0.027
    """
    degrees = num_clusters - 1
    return NormalDist().cdf(-sqrt(num_clusters / degrees) * student_quantile(1 - TAIL, degrees))


def student_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t, by the expansion in 1 / degrees (Abramowitz and Stegun 26.7.5): within 1% from 3 on.

    scipy.stats has it exactly, and takes as long to import as all claims take to test.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / degrees**power for power, term in enumerate(terms, start=1)))


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The mean with Student's 90% interval; no ends below FEWEST_VALUES values, None without any.

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
    if found is None:
        return None
    ends = () if found.low is None or found.high is None else (exp(found.low), exp(found.high))
    return Interval(exp(found.value), *ends)


@dataclass(frozen=True, slots=True)
class Sample:
    """Two numbers of one thing, the group within which they are compared, and the cluster that is resampled."""

    group: Hashable
    cluster: Hashable
    x: float
    y: float


def pearson(samples: Sequence[Sample]) -> Interval | None:
    """Pooled within-group Pearson r of x and y, clusters resampled; group means are taken anew in every draw."""
    order = {group: index for index, group in enumerate(dict.fromkeys(sample.group for sample in samples))}
    codes = np.array([order[sample.group] for sample in samples], dtype=int)
    groups = np.asarray(codes[:, None] == np.arange(len(order)), dtype=float)
    x, y = (_scaled([getattr(sample, name) for sample in samples]) for name in ("x", "y"))

    def statistic(weights: Numbers) -> Numbers:
        dx, dy = (_centred(values, groups, weights) for values in (x, y))
        covariance, var_x, var_y = ((weights * a * b).sum(1) for a, b in ((dx, dy), (dx, dx), (dy, dy)))
        defined = np.minimum(var_x, var_y) > _ROUNDING**2 * weights.sum(1)
        found: Numbers = np.where(defined, np.clip(covariance / np.sqrt(var_x * var_y), -1, 1), np.nan)
        return found

    return cluster_interval([sample.cluster for sample in samples], statistic)


def _scaled(values: Sequence[float]) -> Numbers:
    """Values over the largest, which keeps the squares of very small ones above zero."""
    array = np.array(values, dtype=float)
    largest = np.abs(array).max(initial=0.0)
    return array / largest if largest else array


def _centred(values: Numbers, groups: Numbers, weights: Numbers) -> Numbers:
    """Values minus their group's weighted mean, [draws, samples]; groups: membership [samples, groups], 0 or 1."""
    total = weights @ groups
    means = (weights * values) @ groups / np.where(total > 0, total, 1)
    found: Numbers = values - means @ groups.T
    return found
