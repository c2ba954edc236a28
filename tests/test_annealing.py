"""How likely queries are masked, step by step, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.errors import UsageError
from luma_cli.head.eomt import MaskAnnealing


def test_the_schedule_of_ade20k():
    """20,210 images in batches of 16 for 31 epochs, nearly: EoMT states these steps for its DINOv2-L."""
    schedule = MaskAnnealing.published(39_120, 4)
    assert schedule.starts == (6520, 13040, 19560, 26080)
    assert schedule.ends == (13040, 19560, 26080, 32600)
    assert schedule.probabilities(0) == schedule.probabilities(6520) == (1, 1, 1, 1)
    assert schedule.probabilities(9780) == pytest.approx((0.5**0.9, 1, 1, 1))
    assert schedule.probabilities(32600) == schedule.probabilities(39119) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("num_steps", "starts", "ends"),
    [  # configs/dinov2 of https://github.com/tue-mps/eomt: S and B, S and B for twice as long, L on Cityscapes, g
        (88_692, (14782, 36955, 59128), (29564, 51737, 73910)),
        (177_384, (29564, 73910, 118256), (59128, 103474, 147820)),
        (19_902, (3317, 6634, 9951, 13268), (6634, 9951, 13268, 16585)),
        (88_692, (14782, 25869, 36955, 48042, 59128), (29564, 40651, 51737, 62824, 73910)),
    ],
)
def test_the_schedules_of_all_sizes(num_steps, starts, ends):
    schedule = MaskAnnealing.published(num_steps, len(starts))
    assert schedule.starts == pytest.approx(starts, abs=0.5)  # theirs are whole steps
    assert schedule.ends == pytest.approx(ends, abs=0.5)


def test_a_single_block_goes_first():
    assert MaskAnnealing.published(600, 1) == MaskAnnealing((100,), (200,))


def test_steps_may_be_said_one_by_one():
    schedule = MaskAnnealing((0, 6520), (3000, 9780))
    assert schedule.probabilities(1500) == pytest.approx((0.5**0.9, 1))
    assert MaskAnnealing((5,), (5,)).probabilities(5) == (0,)
    assert MaskAnnealing((5,), (5,)).probabilities(4) == (1,)


@given(st.integers(1, 50_000), st.integers(1, 8), st.lists(st.integers(0, 60_000), min_size=2, max_size=20))
def test_masks_only_ever_disappear_the_earliest_block_first(num_steps, num_joint, steps):
    schedule = MaskAnnealing.published(num_steps, num_joint)
    rows = [schedule.probabilities(step) for step in sorted(steps)]
    assert all(0 <= value <= 1 for row in rows for value in row)
    assert all(list(row) == sorted(row) for row in rows)
    assert all(
        later <= earlier for a, b in zip(rows, rows[1:], strict=False) for earlier, later in zip(a, b, strict=True)
    )
    assert schedule.probabilities(num_steps) == (0,) * num_joint


@pytest.mark.parametrize(("starts", "ends"), [((1,), (1, 2)), ((), ()), ((3,), (2,)), ((-1,), (2,))])
def test_impossible_schedules_are_refused(starts, ends):
    with pytest.raises(UsageError, match="expected"):
        MaskAnnealing(starts, ends)
