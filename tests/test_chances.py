"""Chances are counted over draws, sum to one, and do not move for what is dominated."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from luma_cli.advise.fronts import Floats, best_chance, chances, chances_at

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
    before, after = chances(costs, draws), chances([*costs, costs[above] + 1], worse)
    assert after.on_front[:-1] == pytest.approx(before.on_front)
    assert after.best[:-1] == pytest.approx(before.best)
    assert (after.on_front[-1], after.best[-1]) == (0, 0)


def test_only_what_meets_the_budget_takes_part() -> None:
    found = chances([1.0, 2.0, 3.0], [[50.0, 51.0, 52.0]], within=[True, True, False])
    assert found.best.tolist() == [0, 1, 0]
    assert found.on_front.tolist() == [1, 1, 0]


def test_a_budget_that_is_met_in_half_of_the_draws() -> None:
    draws = [[50.0, 51.0], [50.0, 51.0]]
    found = chances_at([[1.0, 2.0], [1.0, 9.0]], draws, within=[[True, True], [True, False]])
    assert found.best.tolist() == [0.5, 0.5]
    assert found.on_front.tolist() == [1.0, 0.5]


def test_nothing_within_the_budget_and_no_candidates() -> None:
    assert best_chance([[50.0, 51.0]], within=[False, False]).tolist() == [0, 0]
    assert best_chance(np.zeros((3, 0))).tolist() == []


def test_three_costs_are_counted_over_fewer_draws() -> None:
    random = np.random.default_rng(0)
    draws = random.normal(size=(900, 6))
    costs = random.normal(size=(6, 3))
    assert chances(costs, draws).on_front == pytest.approx(chances(costs, draws[:400]).on_front)


def test_two_thousand_candidates_and_draws_are_quick() -> None:
    random = np.random.default_rng(0)
    costs = np.exp(random.normal(size=2000))
    draws = 50 + np.log(costs) + random.normal(size=(2000, 2000))
    started = time.process_time()
    found = chances(costs, draws)
    assert time.process_time() - started < 1.0  # 0.15 s on a quiet core
    assert found.best.sum() == pytest.approx(1)
