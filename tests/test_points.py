"""Values of masks at points, their transpose, and the choice of uncertain points, against what torch computes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import grid_sample

from luma_cli.catalogue.recipes import Recipe
from luma_cli.seeds import LOSS, MATCHING
from luma_cli.train.points import PointCounts, Points, choose, least, sample_each, sample_shared, spread, uniform

SIDES = st.integers(1, 17)


def grid(rows: int, count: int, seed: int) -> torch.Tensor:
    """Points with the four corners of the image among them."""
    drawn = 2 * torch.rand(rows, count, 2, generator=torch.Generator().manual_seed(seed)) - 1
    corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    return torch.cat((drawn, corners.expand(rows, -1, -1)), dim=1)


@settings(max_examples=40)
@given(st.integers(1, 3), st.integers(1, 5), SIDES, SIDES, st.integers(0, 50), st.integers(0, 99))
def test_shared_points_are_sampled_as_by_grid_sample(batch, queries, height, width, count, seed):
    masks = torch.randn(batch, queries, height, width, generator=torch.Generator().manual_seed(seed))
    points = grid(batch, count, seed)
    expected = grid_sample(masks, points[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
    torch.testing.assert_close(sample_shared(masks, points), expected, rtol=1e-5, atol=1e-5)


def test_spread_is_the_transpose_of_sampling():
    masks = torch.randn(3, 5, 9, dtype=torch.float64, requires_grad=True)
    points = grid(3, 30, 0).double()
    slopes = torch.randn(3, 34, dtype=torch.float64)
    (expected,) = torch.autograd.grad(sample_each(masks, points), masks, slopes)
    torch.testing.assert_close(spread(slopes, masks, points), expected)


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_least_are_the_smallest(count):
    values = torch.rand(4, 20, generator=torch.Generator().manual_seed(0))
    values[0, 3] = torch.nan
    found = values.gather(1, least(values, count)).sort(1).values
    assert torch.equal(found.nan_to_num(2), values.nan_to_num(2).sort(1).values[:, :count])


def test_candidates_of_least_certainty_stay_beside_all_fresh_ones():
    masks = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = grid(2, 36, 0)
    counts = PointCounts(candidates=30, uncertain=8, fresh=10)
    points, logits = choose(masks, drawn, counts)
    assert points.shape == (2, 18, 2)
    assert torch.equal(sample_each(masks, points), logits)
    assert torch.equal(points[:, 8:], drawn[:, 30:])
    certainty = sample_each(masks, drawn[:, :30]).abs().sort(1).values
    assert torch.equal(logits[:, :8].abs().sort(1).values, certainty[:, :8])


def test_counts_are_those_of_the_recipe():
    assert PointCounts.of(Recipe()) == PointCounts(37632, 9408, 3136)
    assert PointCounts.of(Recipe(num_points=10, importance_ratio=0)) == PointCounts(30, 0, 10)


def test_points_are_drawn_by_their_keys_within_the_grid():
    points = Points((5, 6), 2, torch.device("cpu"))
    shared = points.matching([7, 8], 100)
    assert shared.abs().max() <= 1
    assert torch.equal(shared[1], 2 * uniform((100, 2), "cpu", MATCHING, 5, 6, 8, 2) - 1)
    own = points.loss([7, 8], [0, 3], PointCounts(30, 5, 10))
    assert torch.equal(own, 2 * uniform((3, 40, 2), "cpu", LOSS, 5, 6, 8, 2) - 1)
