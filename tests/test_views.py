"""Images as windows: the pixels that EoMT would cut, mirrored and padded for other views."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from luma_cli.errors import BadSample
from luma_cli.evaluate.inference import TTA_SCALES, look_at


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_windows_are_cut_from_the_image_as_pil_resizes_it():
    drawn = image(40, 90)
    (view,) = look_at(drawn, 32)
    resized = np.asarray(Image.fromarray(drawn).resize((72, 32), Image.Resampling.BILINEAR))
    assert view.plan.lefts == (0, 20, 40)
    for window, left in zip(view.windows, view.plan.lefts, strict=True):
        assert np.array_equal(window, resized[:, left : left + 32])


def test_an_image_of_the_right_size_keeps_its_pixels():
    drawn = image(32, 32)
    (view,) = look_at(drawn, 32)
    assert np.array_equal(view.windows[0], drawn)


def test_augmented_views_are_six_sizes_mirrored_and_not_and_small_ones_end_black():
    views = look_at(image(40, 60), 32, tta=True)
    assert [view.flipped for view in views] == [False, True] * len(TTA_SCALES)
    assert [view.plan.resized_height for view in views[::2]] == [16, 24, 32, 40, 48, 56]
    half, mirrored = views[:2]
    assert half.windows[0][16:].max() == 0
    assert half.windows[0][:, 24:].max() == 0
    assert np.array_equal(mirrored.windows[0][:16, :24], half.windows[0][:16, :24][:, ::-1])


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), "u1")]
)
def test_what_is_no_rgb_image_is_refused(wrong):
    with pytest.raises(BadSample, match=r"expected \[H, W, 3\] of uint8"):
        look_at(wrong, 32)
