"""Masks read from a label map at points are those of binary masks, sampled by torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_points import grid
from torch.nn.functional import grid_sample

from luma_cli.errors import DataError
from luma_cli.train.points import PackedLabels, present, segments

SIDES = st.integers(1, 17)


@settings(max_examples=40)
@given(st.integers(1, 3), SIDES, SIDES, st.sampled_from([1, 5, 254]), st.integers(0, 50), st.integers(0, 99))
def test_masks_at_points_are_those_of_binary_masks(batch, height, width, num_classes, count, seed):
    """Ignored pixels (255) belong to no mask, and nothing lies outside the image."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes + 1, (batch, height, width), generator=generator).to(torch.uint8)
    labels[labels == num_classes] = 255
    images = torch.randint(0, batch, (6,), generator=generator)
    classes = torch.randint(0, num_classes, (6,), generator=generator)
    points = grid(6, count, seed)
    binary = (labels[images] == classes[:, None, None]).float()[:, None]
    expected = grid_sample(binary, points[:, :, None], align_corners=False)[:, 0, :, 0]
    found = PackedLabels(labels).around(points, images).masks(classes[:, None])
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * max(height, width))


def test_all_segments_of_an_image_at_once():
    labels = torch.randint(0, 4, (2, 9, 9), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    around = PackedLabels(labels).around(grid(2, 10, 0), torch.arange(2))
    classes = torch.tensor([[0, 1, 3], [2, 3, 1]])
    together = around.unsqueeze().masks(classes[..., None])
    assert together.shape == (2, 3, 14)
    for row in range(3):
        assert torch.equal(together[:, row], around.masks(classes[:, row, None]))


def test_values_that_an_image_holds():
    labels = torch.tensor([[[0, 255]], [[3, 3]]], dtype=torch.uint8)
    assert [torch.where(row)[0].tolist() for row in present(labels)] == [[0, 255], [3]]
    assert [values.tolist() for values in segments(labels, 4, [0, 1])] == [[0], [3]]
    assert segments(torch.full((1, 2, 2), 255, dtype=torch.uint8), 4, [0])[0].dtype == np.int64


def test_a_value_that_is_no_class_names_the_sample():
    labels = torch.tensor([[[0, 255]], [[3, 3]]], dtype=torch.uint8)
    with pytest.raises(DataError, match=r"sample 31 has label 3, expected 0 to 2 or 255; look with luma data check"):
        segments(labels, 3, [30, 31])
