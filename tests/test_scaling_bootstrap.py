"""Intervals of the exponents cover in simulation, are the same for the same seed, and refuse what they cannot tell."""

from __future__ import annotations

import numpy as np
import pytest
import scaling_world as world

from luma_cli.scaling.bootstrap import WIDEST, ExponentInterval, bootstrap
from luma_cli.scaling.law import PLAIN, Elasticity, fit
from luma_cli.to_json import to_json


@pytest.mark.parametrize("side", [3, 4])
def test_90_percent_intervals_cover(side: int) -> None:
    covered = []
    for seed in range(50):
        points = world.runs(seed, sizes=world.SIZES[side], sides=world.SIDES[side])
        found = bootstrap(fit(points), PLAIN, num_refits=40)
        covered.append(found.size.low <= world.TRUE_SPLIT.size <= found.size.high)
    assert 0.8 <= np.mean(covered) <= 0.98  # nominal 0.90, its standard error 0.04


def test_same_seed_same_numbers() -> None:
    fitted = fit(world.runs())
    first, second, other = (bootstrap(fitted, PLAIN, 40, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first.size != other.size


def test_clear_runs_tell_and_noisy_ones_do_not() -> None:
    clear = bootstrap(fit(world.runs()), PLAIN, 100)
    assert clear.identified
    assert clear.size.low <= clear.size.value <= clear.size.high
    noisy = bootstrap(fit(world.runs(noise=3.0, sizes=world.SIZES[3], sides=world.SIDES[3])), PLAIN)
    assert not noisy.identified
    assert len(noisy.draws) == 100  # what is hopeless is not refitted 500 times
    assert to_json(noisy.size)["value"] is None


def test_split_of_every_draw_spends_all_the_compute() -> None:
    elasticity = Elasticity(0.93, 1.14)
    found = bootstrap(fit(world.runs()), elasticity, 50)
    spent = [elasticity.p * each.size + elasticity.q * each.tokens for each in found.draws]
    assert spent == pytest.approx([1.0] * 50)


def test_interval_tells_up_to_a_quarter() -> None:
    assert ExponentInterval(0.8, 0.7, 0.7 + WIDEST).tells
    assert not ExponentInterval(0.8, 0.7, 0.96).tells


def test_levels_widen_nothing_when_they_are_known_well() -> None:
    one = bootstrap(fit(world.runs(0)), PLAIN, 100).size.width
    both = [*world.runs(0, level="one"), *world.runs(1, level="two", factor=0.8)]
    assert bootstrap(fit(both), PLAIN, 100).size.width < one * 1.2
