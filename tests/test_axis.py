"""Where candidates stand on a cost axis, and draws of it with the stated intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from advise_world import candidate

from luma_cli.advise.fronts import axis_kind, draw_places, is_certain, place
from luma_cli.advise.question import Priced
from luma_cli.errors import UsageError
from luma_cli.speed.quantity import Quantity
from luma_cli.units import BudgetKind


def priced(name: str, kind: BudgetKind, value: float, low: float = 0.0, high: float = 0.0) -> Priced:
    quantity = Quantity(kind, value, low or value, high or value, "predicted" if low else "exact")
    return Priced(candidate(name), {kind: quantity})


def test_a_rate_is_placed_by_its_reciprocal_and_the_unknown_nowhere() -> None:
    assert place(priced("a", "images_per_second", 50.0), "images_per_second") == pytest.approx(0.02)
    assert place(priced("a", "ms", 20.0), "ms") == 20
    assert math.isnan(place(priced("a", "ms", 20.0), "joules"))


def test_draws_have_the_stated_interval_and_are_shared_by_weights_of_one_architecture() -> None:
    pool = [priced("a.dinov3", "ms", 20.0, 16.0, 25.0), priced("a.deit", "ms", 20.0, 16.0, 25.0)]
    pool = [Priced(candidate("a.dinov3"), pool[0].costs), Priced(candidate("a.deit"), pool[1].costs)]
    drawn = draw_places([*pool, priced("b", "ms", 30.0)], "ms", 4000)
    assert np.quantile(drawn[:, 0], [0.1, 0.5, 0.9]) == pytest.approx([16, 20, 25], rel=0.03)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert drawn[:, 2] == pytest.approx(30)
    assert (drawn == draw_places([*pool, priced("b", "ms", 30.0)], "ms", 4000)).all()


def test_a_rate_keeps_its_interval_when_it_is_turned_over() -> None:
    drawn = 1 / draw_places([priced("a", "images_per_second", 50.0, 40.0, 62.5)], "images_per_second", 4000)
    assert np.quantile(drawn, [0.1, 0.9]) == pytest.approx([40, 62.5], rel=0.03)


def test_counts_are_certain_and_predictions_are_not() -> None:
    assert is_certain([priced("a", "macs", 1e9)], "macs")
    assert not is_certain([priced("a", "ms", 20.0, 16.0, 25.0)], "ms")


def test_an_unknown_axis() -> None:
    assert axis_kind("throughput") == "images_per_second"
    with pytest.raises(UsageError, match="expected one of gflops, latency"):
        axis_kind("watts")
