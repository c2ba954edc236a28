"""Chances are counted over draws, sum to one, and do not move for what is dominated."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from luma_cli.advise.fronts import Floats, best_chance, on_front

MIOUS = st.sampled_from([48.0, 49.0, 50.0, 51.0])
DRAWS = st.tuples(st.integers(1, 6), st.integers(1, 8)).flatmap(lambda shape: arrays(np.float64, shape, elements=MIOUS))


@given(DRAWS)
def test_best_sums_to_one_with_ties_split(draws: Floats) -> None:
    best = best_chance(draws)
    assert best.sum() == pytest.approx(1)
    expected = [
        np.mean([(row == row.max())[index] / (row == row.max()).sum() for row in draws])
        for index in range(draws.shape[1])
    ]
    assert best == pytest.approx(np.array(expected))


@given(DRAWS, st.data())
def test_a_dominated_candidate_changes_nothing(draws: Floats, data: st.DataObject) -> None:
    costs = data.draw(arrays(np.float64, draws.shape[1], elements=st.sampled_from([1.0, 2.0, 3.0])))
    above = data.draw(st.integers(0, draws.shape[1] - 1))
    worse = np.column_stack((draws, draws[:, above] - 0.5))
    on, then = on_front(costs, draws), on_front([*costs, costs[above] + 1], worse)
    assert then[:, :-1].tolist() == on.tolist()
    assert best_chance(worse)[:-1] == pytest.approx(best_chance(draws))
    assert (then[:, -1].any(), best_chance(worse)[-1]) == (False, 0)


def test_no_candidates() -> None:
    assert best_chance(np.zeros((3, 0))).tolist() == []


@pytest.mark.parametrize("drawn", [False, True])
def test_two_thousand_candidates_and_draws_are_quick(drawn: bool) -> None:
    random = np.random.default_rng(0)
    costs = np.exp(random.normal(size=2000))
    draws = 50 + np.log(costs) + random.normal(size=(2000, 2000))
    places = costs * np.exp(random.normal(size=draws.shape)) if drawn else costs
    started = time.process_time()
    chances = on_front(places, draws).mean(axis=0), best_chance(draws)
    assert time.process_time() - started < 2.0  # 0.3 s on a quiet core, 0.5 s where costs are drawn
    assert chances[1].sum() == pytest.approx(1)
