"""The knee against the chord computed by hand, its vote over draws, and the price of a doubling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from luma_cli.advise.fronts import Floats, knee, knees, marginal_prices, on_front

WORLDS = st.tuples(st.integers(1, 5), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(
        arrays(np.float64, shape[1], elements=st.sampled_from([1.0, 2.0, 3.0, 5.0, 9.0, 20.0])),
        arrays(np.float64, shape, elements=st.sampled_from([30.0, 37.0, 41.0, 46.0, 50.0])),
    )
)


def by_hand(costs: Floats, mious: Floats) -> int:
    """The front's point farthest above the chord; -1 without one."""
    mask = on_front(costs, mious)
    points = sorted((cost, mious[index], index) for index, cost in enumerate(costs) if mask[index])
    (x0, y0, _), (x1, y1, _) = points[0], points[-1]
    if x1 == x0 or y1 == y0:
        return -1
    above = [((y - y0) / (y1 - y0) - math.log(x / x0) / math.log(x1 / x0), index) for x, y, index in points]
    most = max(value for value, _ in above)
    return next(index for value, index in above if value > most - 1e-9) if most > 1e-9 else -1


@given(WORLDS)
def test_knee_of_each_draw(world: tuple[Floats, Floats]) -> None:
    costs, draws = world
    found = knees(costs, draws)
    for draw, index in zip(draws, found, strict=True):
        expected = by_hand(costs, draw)
        if expected < 0 or index < 0:
            assert index == expected
        else:  # two candidates may be the same point
            assert (costs[index], draw[index]) == (costs[expected], draw[expected])


def test_vote_counts_draws_without_a_knee() -> None:
    draws = [[30.0, 48.0, 49.0, 50.0], [30.0, 47.0, 49.0, 50.0], [30.0, 31.0, 49.0, 50.0], [50.0, 48.0, 49.0, 50.0]]
    assert knee([1, 2, 4, 8], draws) == (1, 0.5)


def test_no_knee_at_all() -> None:
    assert knee([1, 2], [[30.0, 50.0]]) is None


def test_price_of_a_doubling() -> None:
    assert marginal_prices([10, 11, 40, 80, 81], [40.0, 43.0, 46.0, 47.0, 47.5]) == [3.0, 0.0, 1.0, 0.5, None]
    assert marginal_prices([10], [40.0]) == [None]
    assert marginal_prices([], []) == []


def test_costs_that_have_no_logarithm() -> None:
    with pytest.raises(ValueError, match="greater than zero"):
        knees([0.0], [[50.0]])


def test_what_scores_below_the_least_does_not_set_the_chord() -> None:
    costs, draws = [1, 2, 4, 8, 16], [[20.0, 36.0, 44.0, 46.0, 47.0]]
    assert knees(costs, draws) == [2]
    assert knees(costs, draws, least_miou=40.0) == [3]
    assert knees(costs, draws, least_miou=60.0) == [-1]
