"""The closed form of the expected hypervolume improvement against Monte Carlo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luma_cli.advise.fronts import hypervolumes
from luma_cli.advise.gain import expected_hypervolume_improvement, expected_improvement, steps

REFERENCE = 2.0**10
POINTS = st.lists(st.tuples(st.integers(0, 11), st.floats(35, 55)), max_size=6)


def by_monte_carlo(points: list[tuple[int, float]], cost: float, mu: float, sd: float) -> tuple[float, float]:
    """Mean hypervolume added by a candidate over 4,000 of its outcomes, and the standard error of that."""
    outcomes = np.random.default_rng(1).normal(mu, sd, size=4000)
    draws = np.column_stack((np.tile([miou for _, miou in points], (4000, 1)), outcomes))
    costs = [2.0**each for each, _ in points]
    before = hypervolumes(costs, draws[:, :-1], REFERENCE, 30.0)
    added = hypervolumes([*costs, cost], draws, REFERENCE, 30.0) - before
    return float(added.mean()), float(added.std() / np.sqrt(len(added)))


@given(POINTS, st.floats(0, 9), st.floats(35, 55), st.floats(0.1, 4))
@settings(max_examples=60)
def test_agrees_with_monte_carlo(points: list[tuple[int, float]], log_cost: float, mu: float, sd: float) -> None:
    front = steps([2.0**cost for cost, _ in points], [miou for _, miou in points], REFERENCE, 30.0)
    closed = expected_hypervolume_improvement([2.0**log_cost], [mu], [sd], front)[0]
    sampled, error = by_monte_carlo(points, 2.0**log_cost, mu, sd)
    assert closed == pytest.approx(sampled, abs=5 * error + 0.01)


def test_a_certain_candidate_adds_its_area() -> None:
    front = steps([4.0, 16.0], [40.0, 45.0], REFERENCE, 30.0)
    assert expected_hypervolume_improvement([8.0, 8.0, 32.0], [43.0, 39.0, 46.0], [0.0] * 3, front).tolist() == [
        3,
        0,
        5,
    ]


def test_a_dominated_point_changes_nothing() -> None:
    costs, mious = [4.0, 16.0], [40.0, 45.0]
    plain, more = steps(costs, mious, REFERENCE), steps([*costs, 20.0, 4.0], [*mious, 44.0, 39.0], REFERENCE)
    assert plain.edges.tolist() == more.edges.tolist()
    assert plain.heights.tolist() == more.heights.tolist()


def test_beyond_the_reference_nothing_is_gained() -> None:
    front = steps([4.0], [40.0], REFERENCE)
    assert expected_hypervolume_improvement([REFERENCE * 2], [60.0], [1.0], front).tolist() == [0.0]


def test_expected_improvement_far_below_is_nothing_and_far_above_the_gap() -> None:
    assert expected_improvement([10.0, 90.0], 1.0, 50.0).tolist() == pytest.approx([0.0, 40.0])
