"""The front of many draws against the front of each, by its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_advise_front import by_definition

from luma_cli.advise.fronts import on_drawn_front, on_drawn_front_at, on_front, reached

# Few distinct values, so that ties and duplicates are common.
VALUES = st.sampled_from([1.0, 2.0, 3.0, 4.0, math.nan])
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 4))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]]]:
    """Costs [C, K] and draws [S, C]."""
    num_draws, num_candidates, num_costs = draw(SHAPES)
    costs = draw(
        st.lists(
            st.lists(VALUES, min_size=num_costs, max_size=num_costs), min_size=num_candidates, max_size=num_candidates
        )
    )
    row = st.lists(VALUES, min_size=num_candidates, max_size=num_candidates)
    return costs, draw(st.lists(row, min_size=num_draws, max_size=num_draws))


@given(worlds())
def test_every_draw_has_the_front_of_the_definition(world: tuple[list[list[float]], list[list[float]]]) -> None:
    costs, draws = world
    expected = [by_definition([tuple(cost) for cost in costs], draw) for draw in draws]
    assert on_drawn_front(costs, draws).tolist() == expected


@given(worlds())
def test_costs_drawn_too(world: tuple[list[list[float]], list[list[float]]]) -> None:
    costs, draws = world
    several = [[cost[index % len(cost)] for cost in costs] for index in range(len(draws))]
    expected = [by_definition([(each,) for each in cost], draw) for cost, draw in zip(several, draws, strict=True)]
    assert on_drawn_front_at(several, draws).tolist() == expected


@pytest.mark.parametrize("num_costs", [1, 2, 3])
def test_agrees_with_the_front_of_one_answer_on_many_candidates(num_costs: int) -> None:
    random = np.random.default_rng(num_costs)
    costs, draws = random.normal(size=(150, num_costs)), random.normal(size=(5, 150))
    expected = [on_front(costs.tolist(), draw) for draw in draws.tolist()]
    assert on_drawn_front(costs, draws).tolist() == expected


def test_what_is_reached_is_a_running_maximum() -> None:
    prices, best = reached([2.0, 1.0, 2.0, math.nan], [[50.0, 40.0, 60.0, 99.0], [30.0, 40.0, 20.0, 99.0]])
    assert prices.tolist() == [1.0, 2.0]
    assert best.tolist() == [[40.0, 60.0], [40.0, 40.0]]


def test_shapes_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="expected"):
        on_drawn_front([1.0, 2.0], [[50.0]])
    with pytest.raises(ValueError, match="expected"):
        on_drawn_front_at([[1.0, 2.0]], [[50.0]])
    with pytest.raises(ValueError, match="one cost"):
        reached([[1.0, 2.0]], [[50.0]])
