"""The front against its definition, of one answer and of many draws, with ties and NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.advise.fronts import on_front, reached

# Few distinct values, so that ties and duplicates are common.
VALUES = st.sampled_from([1.0, 2.0, 3.0, 4.0, math.nan])
POINTS = st.lists(st.tuples(VALUES, VALUES), max_size=25)


def by_definition(costs: list[float], scores: list[float]) -> list[bool]:
    def known(i: int) -> bool:
        return not (math.isnan(costs[i]) or math.isnan(scores[i]))

    def beats(j: int, i: int) -> bool:
        return costs[j] <= costs[i] and scores[j] >= scores[i] and (costs[j], scores[j]) != (costs[i], scores[i])

    indices = range(len(scores))
    return [known(i) and not any(known(j) and beats(j, i) for j in indices) for i in indices]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]]]:
    """Costs and mIoU of the same draws [S, C]."""
    num_draws, num_candidates = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    row = st.lists(VALUES, min_size=num_candidates, max_size=num_candidates)
    rows = st.lists(row, min_size=num_draws, max_size=num_draws)
    return draw(rows), draw(rows)


@given(POINTS)
def test_front_is_its_definition(points: list[tuple[float, float]]) -> None:
    costs, scores = [cost for cost, _ in points], [score for _, score in points]
    assert on_front(costs, scores).tolist() == by_definition(costs, scores)


@given(worlds())
def test_every_draw_has_the_front_of_the_definition(world: tuple[list[list[float]], list[list[float]]]) -> None:
    (costs, *_), draws = world
    assert on_front(costs, draws).tolist() == [by_definition(costs, draw) for draw in draws]


@given(worlds())
def test_costs_drawn_too(world: tuple[list[list[float]], list[list[float]]]) -> None:
    costs, draws = world
    expected = [by_definition(cost, draw) for cost, draw in zip(costs, draws, strict=True)]
    assert on_front(costs, draws).tolist() == expected


def test_agrees_with_the_front_of_one_answer_on_many_candidates() -> None:
    random = np.random.default_rng(1)
    costs, draws = random.normal(size=150), random.normal(size=(5, 150))
    assert on_front(costs, draws).tolist() == [on_front(costs, draw).tolist() for draw in draws]


def test_equal_points_are_both_kept() -> None:
    assert on_front([1.0, 1.0, 2.0], [50.0, 50.0, 50.0]).tolist() == [True, True, False]


def test_one_point_and_none() -> None:
    assert on_front([1.0], [50.0]).tolist() == [True]
    assert on_front([], []).tolist() == []


def test_nan_neither_stays_nor_removes() -> None:
    assert on_front([0.0, 1.0, math.nan], [math.nan, 50.0, 60.0]).tolist() == [False, True, False]


def test_what_is_reached_is_a_running_maximum() -> None:
    prices, best = reached([2.0, 1.0, 2.0, math.nan], [[50.0, 40.0, 60.0, 99.0], [30.0, 40.0, 20.0, 99.0]])
    assert prices.tolist() == [1.0, 2.0]
    assert best.tolist() == [[40.0, 60.0], [40.0, 40.0]]


def test_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="expected"):
        on_front([1.0, 2.0], [[50.0]])
    with pytest.raises(ValueError, match="expected"):
        on_front([[1.0, 2.0]], [[50.0]])
    with pytest.raises(ValueError, match="one cost"):
        reached([[1.0, 2.0]], [[50.0]])
