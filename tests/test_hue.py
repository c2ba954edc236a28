"""The hue shift against torchvision's, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from luma_cli.data.augment import shift_hue


@pytest.mark.parametrize("shift", [0.05, -0.05, 0.0173, -1e-9, 0.0, 0.5, -0.5])
def test_equals_torchvision(shift: float) -> None:
    levels = np.array([*range(0, 256, 7), 1, 2, 127, 128, 253, 254, 255], dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij")).reshape(3, len(levels), -1)
    expected = functional.adjust_hue(torch.from_numpy(colours), shift).numpy()
    assert np.array_equal(shift_hue(colours, shift), expected)


def test_leaves_its_input_alone_and_takes_any_layout() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    before = image.copy()
    shifted = shift_hue(image.transpose(2, 0, 1), 0.04)
    assert np.array_equal(image, before)
    assert np.array_equal(
        shifted, functional.adjust_hue(torch.from_numpy(image).permute(2, 0, 1).contiguous(), 0.04).numpy()
    )
