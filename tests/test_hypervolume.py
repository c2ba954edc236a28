"""The hypervolume against an integration by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.advise.fronts import hypervolumes

POINTS = st.lists(st.tuples(st.integers(0, 12), st.floats(20, 60)), min_size=1, max_size=8)
NUM_CELLS = 1000


@given(POINTS)
def test_is_the_area_that_a_fine_grid_finds(points: list[tuple[int, float]]) -> None:
    costs, mious = [2.0**cost for cost, _ in points], [miou for _, miou in points]
    centres = (np.arange(NUM_CELLS) + 0.5) * 10 / NUM_CELLS  # log2 of cost up to 2**10
    heights = [max([miou - 30 for cost, miou in points if cost <= x and miou > 30], default=0.0) for x in centres]
    found = hypervolumes(costs, [mious], reference_cost=2.0**10, reference_miou=30.0)
    assert found[0] == pytest.approx(sum(heights) * 10 / NUM_CELLS, rel=1e-9)


def test_interval_over_draws() -> None:
    draws = np.linspace(40, 50, 11)[:, np.newaxis]
    found = hypervolumes([1.0], draws, reference_cost=2.0, reference_miou=0.0)
    assert (found.mean(), *np.quantile(found, (0.1, 0.9))) == pytest.approx((45, 41, 49))


def test_a_cost_of_zero_has_no_logarithm() -> None:
    with pytest.raises(ValueError, match="greater than zero"):
        hypervolumes([0.0, 1.0], [[40.0, 50.0]], 8.0, 0.0)
