"""Order statistics against scipy's and numpy's, and against the definition of coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from luma_cli.errors import MeasureError
from luma_cli.measure import timing

finite = st.floats(min_value=1e-6, max_value=1e6, allow_nan=False)


@given(st.lists(finite, min_size=1, max_size=60), st.floats(0, 1))
def test_quantile_is_numpys(values: list[float], q: float) -> None:
    assert timing.quantile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-12)


@pytest.mark.parametrize("n", [6, 7, 8, 29, 30, 31, 100, 101, 999, 5000])
def test_ranks_are_the_narrowest_symmetric_pair_that_covers(n: int) -> None:
    low, high = timing.interval_ranks(n)
    assert high == n - 1 - low

    def coverage(rank: int) -> float:
        return float(binom.cdf(n - 1 - rank, n, 0.5) - binom.cdf(rank, n, 0.5))

    assert coverage(low) >= 0.95
    assert coverage(low + 1) < 0.95


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_few_samples_give_their_range(n: int) -> None:
    assert timing.interval_ranks(n) == (0, n - 1)


def test_interval_covers_the_median_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).exponential(size=(2000, 41))
    hits = sum(low <= math.log(2) <= high for low, high in map(timing.median_interval, draws.tolist()))
    assert 0.94 <= hits / 2000 <= 0.99


def test_summary_keeps_samples_and_tail() -> None:
    metric = timing.summarise("latency_eager", "ms", [float(v) for v in range(1, 12)], tail=True)
    assert (metric.median, metric.p90, metric.n) == (6.0, 10.0, 11)
    assert metric.samples == tuple(float(v) for v in range(1, 12))
    assert metric.ci_low <= metric.median <= metric.ci_high


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_no_summary_of_what_is_not_a_number(bad: float) -> None:
    with pytest.raises(MeasureError, match="not a finite number"):
        timing.summarise("throughput", "images/s", [1.0, bad])


def test_nothing_timed_is_said() -> None:
    with pytest.raises(MeasureError, match="nothing was timed"):
        timing.median([])
