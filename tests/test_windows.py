"""Where windows lie: closed forms, EoMT's own formula in exact numbers, and images of every shape."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.catalogue.windows import WindowPlan, plan_windows, spread, windows_per_image
from luma_cli.errors import BadSample
from luma_cli.evaluate.inference import check_size

sides = st.integers(1, 3000)


@pytest.mark.parametrize(
    ("height", "width", "side", "resized", "corners"),
    [
        (512, 683, 512, (512, 683), ((0, 0), (0, 171))),  # a usual ADE20K image
        (683, 512, 512, (683, 512), ((0, 0), (171, 0))),
        (1024, 2048, 1024, (1024, 2048), ((0, 0), (0, 1024))),  # Cityscapes: no overlap
        (1024, 2048, 224, (224, 448), ((0, 0), (0, 224))),
        (512, 512, 512, (512, 512), ((0, 0),)),
        (100, 100, 512, (512, 512), ((0, 0),)),
        (256, 341, 512, (512, 682), ((0, 0), (0, 170))),
        (2000, 3000, 512, (512, 768), ((0, 0), (0, 256))),
        (1, 1, 64, (64, 64), ((0, 0),)),
        (64, 65, 64, (64, 65), ((0, 0), (0, 1))),
        (64, 150, 64, (64, 150), ((0, 0), (0, 43), (0, 86))),
    ],
)
def test_plans(height, width, side, resized, corners):
    plan = plan_windows(height, width, side)
    assert (plan.resized_height, plan.resized_width) == resized
    assert plan.corners == corners
    assert plan.num_windows == len(corners)


def test_an_extreme_ratio_has_a_plan_and_is_refused_before_memory_is_filled():
    plan = plan_windows(1, 2000, 512)
    assert (plan.resized_height, plan.resized_width, plan.num_windows) == (512, 1_024_000, 2000)
    assert plan.lefts == tuple(range(0, 1_024_000, 512))
    with pytest.raises(BadSample, match=r"2000 x 1 pixels become 1024000 x 512"):
        check_size(plan)
    check_size(plan_windows(3, 700, 512))


@given(sides, sides)
def test_starts_are_those_of_eomt_in_exact_numbers(length, side):
    starts = spread(length, side)
    count = math.ceil(length / side)
    assert len(starts) == max(1, count)
    overlap = Fraction(count * side - length, max(1, count - 1))
    assert starts == (tuple(int(j * (side - overlap)) for j in range(count)) if length > side else (0,))


@given(sides, sides, st.integers(1, 600), st.sampled_from([0.5, 0.75, 1.0, 1.75]))
def test_every_pixel_is_seen_and_no_window_leaves_the_image(height, width, side, scale):
    plan = plan_windows(height, width, side, scale)
    for starts, length in ((plan.tops, plan.resized_height), (plan.lefts, plan.resized_width)):
        assert starts[0] == 0
        assert starts[-1] + side == max(length, side)
        assert all(0 < after - before <= side for before, after in zip(starts, starts[1:], strict=False))


@given(sides, sides, st.integers(1, 600))
def test_the_short_side_becomes_the_window_and_windows_lie_along_the_long_one(height, width, side):
    plan = plan_windows(height, width, side)
    assert min(plan.resized_height, plan.resized_width) == side
    assert (len(plan.tops) == 1) or height > width
    assert (len(plan.lefts) == 1) or width > height


def test_other_scales_need_windows_both_ways():
    plan = plan_windows(512, 683, 512, 1.5)
    assert (plan.resized_height, plan.resized_width) == (768, 1024)
    assert plan.corners == ((0, 0), (0, 512), (256, 0), (256, 512))
    assert plan_windows(512, 683, 512, 0.5) == WindowPlan(512, 683, 256, 342, 512, (0,), (0,))


def test_windows_per_image_as_eomt_publishes_them() -> None:
    """721 GFLOPs per ADE20K image for 394 per crop, 4,350 per Cityscapes image for 2,174 per crop."""
    assert 394 * windows_per_image("ade20k", None, 512) == pytest.approx(721, rel=0.01)
    assert 2174 * windows_per_image("cityscapes", None, 1024) == pytest.approx(4350, rel=0.01)
    assert windows_per_image("cityscapes", (1080, 1920), 512) == 2
