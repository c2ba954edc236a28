"""Resizing row by row gives what torch's bilinear interpolation gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from luma_cli.evaluate.inference import resize_columns, resize_rows, source_rows


@pytest.mark.parametrize(("source", "target"), [(16, 64), (64, 64), (64, 23), (1, 9), (9, 1), (48, 131), (131, 48)])
def test_rows_and_columns_are_those_of_interpolate(source, target):
    chart = torch.rand(source, 11, 3, generator=torch.Generator().manual_seed(0))
    whole = interpolate(chart.permute(2, 0, 1)[None], (target, 29), mode="bilinear", align_corners=False)[0]
    for rows in (np.arange(target), np.arange(target // 2, target), np.array([0, target - 1])[: min(2, target)]):
        needed = source_rows(rows, source, target)
        found = resize_columns(resize_rows(chart[needed], needed, rows, source, target), 29)
        torch.testing.assert_close(found.permute(2, 0, 1), whole[:, rows], rtol=0, atol=1e-5)


def test_only_the_rows_that_lie_around_are_needed():
    assert source_rows(np.array([0]), 16, 64).tolist() == [0, 1]
    assert source_rows(np.array([63]), 16, 64).tolist() == [15]
    assert source_rows(np.array([6, 7]), 16, 64).tolist() == [1, 2]
    assert source_rows(np.array([3, 9]), 20, 20).tolist() == [3, 9]


def test_a_slab_with_more_rows_than_asked_for():
    chart = torch.arange(8.0)[:, None, None].expand(8, 2, 1)
    found = resize_rows(chart[2:7], np.arange(2, 7), np.array([3, 6]), 8, 8)
    assert found[:, 0, 0].tolist() == [3, 6]
