"""The attainment band against its definition, and that it only rises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from luma_cli.advise.fronts import LEVELS, Floats, attainment

WORLDS = st.tuples(st.integers(1, 8), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(
        arrays(np.float64, shape[1], elements=st.sampled_from([1.0, 2.0, 4.0, 8.0])),
        arrays(np.float64, shape, elements=st.floats(30, 60)),
    )
)


@given(WORLDS)
def test_rises_with_cost_and_falls_with_the_level(world: tuple[Floats, Floats]) -> None:
    band = attainment(*world)
    assert (np.diff(band.miou, axis=1) >= 0).all()
    assert (np.diff(band.miou, axis=0) >= 0).all()  # the levels fall from 90 % to 10 %


@given(WORLDS)
def test_is_the_highest_value_reached_in_that_part_of_the_draws(world: tuple[Floats, Floats]) -> None:
    costs, draws = world
    band = attainment(costs, draws)
    for price in band.costs:
        best = draws[:, costs <= price].max(axis=1)
        for level, reached in zip(LEVELS, band.at(price), strict=True):
            share = [np.mean(best >= value) for value in best]
            assert reached == max(value for value, part in zip(best, share, strict=True) if part >= level - 1e-9)


def test_nothing_is_reached_below_the_cheapest() -> None:
    band = attainment([2.0, 4.0], [[40.0, 50.0]])
    assert band.at(1.9) == (-math.inf,) * 3
    assert band.at(3.0) == (40.0,) * 3


def test_levels_and_draws_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="levels"):
        attainment([1.0], [[50.0]], levels=(0.0,))
    with pytest.raises(ValueError, match="0 draws"):
        attainment([1.0], np.zeros((0, 1)))
