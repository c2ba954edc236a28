"""A training that cannot come back is stopped; one that stumbles is not."""

from __future__ import annotations

import math

import pytest

from luma_cli.errors import Diverged
from luma_cli.train.step import DivergenceWatch

NAN, INF = math.nan, math.inf


def see_all(watch: DivergenceWatch, first: int, losses: list[float]) -> None:
    for step, loss in enumerate(losses, start=first):
        watch.see(step, loss, 1.0)


def test_finite_steps_are_made():
    watch = DivergenceWatch()
    assert all(watch.see(step, 20 - step / 10, 1.0) for step in range(150))


@pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (INF, 1.0), (1.0, NAN), (1.0, INF), (-INF, 1.0)])
def test_a_step_that_is_not_finite_is_left_out(loss, norm):
    watch = DivergenceWatch()
    assert not watch.see(0, loss, norm)
    assert watch.see(1, 1.0, 1.0)
    assert watch.skipped == 0


@pytest.mark.parametrize(("half", "patience"), [(False, 5), (True, 24)])
def test_five_in_a_row_end_it_and_half_precision_waits_for_its_loss_scale(half, patience):
    watch = DivergenceWatch(half_precision=half)
    for step in range(patience - 1):
        watch.see(step, NAN, 1.0)
    with pytest.raises(Diverged, match=f"loss was not finite {patience} times in a row, up to step 99; try --set lr"):
        watch.see(99, NAN, 1.0)


def test_a_gradient_is_named_as_the_cause():
    watch = DivergenceWatch(skipped=4)
    with pytest.raises(Diverged, match="the gradient was not finite"):
        watch.see(7, 1.0, INF)


def test_an_explosion_in_finite_numbers_ends_it():
    watch = DivergenceWatch()
    for step in range(60):
        watch.see(step, 20.0, 1.0)
    with pytest.raises(Diverged, match=r"the loss grew from 20 to .* up to step"):
        see_all(watch, 60, [1e5] * 140)


def test_one_wild_step_is_no_explosion():
    watch = DivergenceWatch()
    assert all(watch.see(step, 2000.0 if step == 120 else 20.0, 1.0) for step in range(300))


def test_a_resumed_watch_ends_where_the_whole_one_does():
    whole, losses = DivergenceWatch(), [20.0] * 60 + [10.0**exponent for exponent in range(2, 12)] * 20
    with pytest.raises(Diverged) as first:
        see_all(whole, 0, losses)
    early, late = DivergenceWatch(), DivergenceWatch()
    see_all(early, 0, losses[:57])
    late.resume(early.state())
    with pytest.raises(Diverged) as second:
        see_all(late, 57, losses[57:])
    assert str(first.value) == str(second.value)
