"""The cost of every pair by its formula, and the assignment of least cost."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import binary_cross_entropy_with_logits, grid_sample

from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.parts import HeadOutput
from luma_cli.train.mask_loss import Matches, assign, costs, gather


def problem(points: int, scale: float = 3) -> tuple[HeadOutput, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two images, four queries, three segments."""
    generator = torch.Generator().manual_seed(points)
    found = HeadOutput(torch.randn(2, 4, 6, generator=generator), scale * torch.randn(2, 4, 5, 7, generator=generator))
    grid = 2 * torch.rand(2, points, 2, generator=generator) - 1
    return found, grid, torch.rand(2, 3, points, generator=generator), torch.tensor([[0, 2, 4], [1, 2, 3]])


@pytest.mark.parametrize("points", [1, 31, 640])
@pytest.mark.parametrize("scale", [3, 1e3])
def test_costs_of_all_pairs(points, scale):
    found, grid, masks, classes = problem(points, scale)
    recipe = Recipe(bce_weight=5, dice_weight=3, class_weight=2)
    table = costs(found, grid, masks, classes, recipe)
    assert table.shape == (2, 3, 4)
    logits = grid_sample(found.mask_logits, grid[:, :, None], align_corners=False)[..., 0]
    for image, segment, query in np.ndindex(2, 3, 4):
        x, t = logits[image, query], masks[image, segment]
        p = x.sigmoid()
        dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
        chance = found.class_logits[image, query].softmax(0)[classes[image, segment]]
        expected = 5 * binary_cross_entropy_with_logits(x, t) + 3 * dice - 2 * chance
        torch.testing.assert_close(table[image, segment, query], expected, rtol=1e-5, atol=1e-5)


def test_costs_of_huge_logits_keep_their_order():
    """A mask that is right everywhere costs least, however large its logits: nothing large cancels."""
    found, grid, masks, classes = problem(640)
    right = grid_sample(found.mask_logits, grid[:, :, None], align_corners=False)[:, 0, :, 0] > 0
    large = HeadOutput(torch.zeros_like(found.class_logits), 1e6 * found.mask_logits)
    table = costs(large, grid, right[:, None].float(), classes[:, :1], Recipe(class_weight=0))
    assert table[:, 0, 0].abs().max() < 0.01
    assert table[:, 0, 1:].min() > 1e3


@settings(max_examples=60)
@given(st.integers(0, 4), st.integers(1, 5), st.integers(0, 99))
def test_no_assignment_costs_less(segments, queries, seed):
    table = np.random.default_rng(seed).normal(size=(segments, queries)).astype(np.float32)
    rows, columns = assign(table)
    assert len(rows) == len(set(columns.tolist())) == min(segments, queries)
    assert (np.diff(rows) > 0).all()
    wide = table if segments <= queries else table.T
    best = min(sum(wide[i, c] for i, c in enumerate(order)) for order in permutations(range(wide.shape[1]), len(wide)))
    assert table[rows, columns].sum() == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
def test_costs_that_are_no_numbers_are_matched(bad):
    rows, columns = assign(np.full((3, 5), bad, dtype=np.float32))
    assert sorted(rows.tolist()) == [0, 1, 2]
    assert len(set(columns.tolist())) == 3


def test_an_infinite_cost_is_avoided():
    table = np.array([[np.inf, 1.0], [1.0, 1.0]], dtype=np.float32)
    assert assign(table)[1].tolist() == [1, 0]


def test_matches_of_neighbouring_images():
    found = [
        (np.array([0, 1]), np.array([5, 2])),
        (np.array([], int), np.array([], int)),
        (np.array([1]), np.array([7])),
    ]
    classes = [np.array([10, 20]), np.array([], int), np.array([30, 40])]
    matches = gather(found, classes, torch.device("cpu"))
    assert [column.tolist() for column in matches[:3]] == [[0, 0, 2], [5, 2, 7], [10, 20, 40]]
    last: Matches = matches.of(range(1, 3))
    assert [column.tolist() for column in last[:3]] == [[2], [7], [40]]
    assert last.counts == (0, 1)
