"""Intervals that respect where figures come from: whole clusters are drawn again, not single figures.

Figures of one source share its code, its schedule and its mistakes, so they are not independent. The cluster bootstrap
(Cameron, Gelbach and Miller 2008, https://doi.org/10.1162/rest.90.3.414) draws sources with replacement and keeps each
with all its figures. Percentiles of few clusters are too narrow, so they are taken further out: the expanded percentile
interval of Hesterberg (2015, https://doi.org/10.1080/00031305.2015.1089789).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

from luma_cli.findings.finding import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Indices = NDArray[np.int64]

NUM_DRAWS = 2000
SEED = 0
TAIL = 0.05
# Fewer clusters give intervals that are far too narrow; none is better than a false one.
FEWEST_CLUSTERS = 4
# A statistic may be undefined in a draw that misses most sources; more than this many and there is no interval.
_MOST_UNDEFINED = 0.05


def multiplicities(num_clusters: int, num_draws: int = NUM_DRAWS, seed: int = SEED) -> Numbers:
    """How often each cluster was drawn, [num_draws, num_clusters]; every row sums to num_clusters."""
    import numpy as np

    random = np.random.default_rng(seed)
    even = np.full(num_clusters, 1 / num_clusters)
    return random.multinomial(num_clusters, even, size=num_draws).astype(np.float64)


def cluster_interval(clusters: Sequence[Hashable], statistic: Callable[[Numbers], Numbers]) -> Interval | None:
    """The statistic on all rows with its 90% percentile interval.

    statistic: from weights [draws, rows] to one number a draw, NaN where undefined; weights are how often a row's
    cluster was drawn. No ends with fewer than FEWEST_CLUSTERS clusters. None when undefined on all rows.
    """
    import numpy as np

    names, codes = _codes(clusters)
    value = float(statistic(np.ones((1, len(clusters))))[0]) if len(clusters) else float("nan")
    if not np.isfinite(value):
        return None
    if len(names) < FEWEST_CLUSTERS:
        return Interval(value)
    drawn = statistic(multiplicities(len(names))[:, codes])
    return percentiles(value, drawn, expanded_tail(len(names)))


def percentiles(value: float, drawn: Numbers, tail: float = TAIL) -> Interval:
    """The value between the `tail` and `1 - tail` quantiles of what was drawn; no ends where too much is undefined."""
    import numpy as np

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
    """Quantile of Student's t, by the expansion in 1 / degrees (Abramowitz and Stegun 26.7.5): within 1 % from 3 on."""
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / degrees**power for power, term in enumerate(terms, start=1)))


def _codes(clusters: Sequence[Hashable]) -> tuple[list[Hashable], Indices]:
    import numpy as np

    names = sorted(set(clusters), key=str)  # whatever the order of the rows
    at = {name: index for index, name in enumerate(names)}
    return names, np.array([at[cluster] for cluster in clusters], dtype=np.int64)
