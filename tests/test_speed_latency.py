"""Latency at batch 1: an overhead that measurements reveal, and honest intervals before they do."""

from __future__ import annotations

import numpy as np
import pytest
from speed_world import FACTORS, table, workload

from luma_cli.speed.reference import LATENCY, lineup_in
from luma_cli.speed.times import predict_latency, with_overhead

EVERY = [workload(f"{family}_{size}", side) for family in FACTORS for size in range(8) for side in (224, 512)]
REFERENCE = lineup_in(table(), ("cuda half", "none")).reference
POINTS = REFERENCE.points(EVERY)
SPREAD_OVER_SIZES = [0, 9, 15, 20, 31, 47]


def truth(overhead: float, seed: int = 0) -> np.ndarray:
    """Log ms on a device three times as slow as the reference, whose networks' overheads differ by 30 %."""
    own = overhead * np.exp(np.random.default_rng(seed).normal(0, 0.3, len(EVERY)))
    found: np.ndarray = np.log(3 * (np.exp(POINTS.base) + own * np.exp(REFERENCE.middle)))
    return found


@pytest.mark.parametrize("overhead", [0.0, 1.0, 10.0])
def test_intervals_cover_whatever_the_overhead(overhead: float) -> None:
    inside = []
    for seed in range(8):
        log_ms = truth(overhead, seed)
        rest = [index for index in range(len(EVERY)) if index not in SPREAD_OVER_SIZES]
        said = predict_latency(
            POINTS[rest], POINTS[SPREAD_OVER_SIZES], log_ms[SPREAD_OVER_SIZES], LATENCY, REFERENCE.middle
        )
        inside.append(np.abs(log_ms[rest] - said.mean) <= 1.2815515594 * np.sqrt(said.variance))
    assert np.mean(inside) > 0.75


def test_several_sizes_reveal_the_overhead_of_small_networks() -> None:
    log_ms = truth(10.0)
    smallest = [index for index, each in enumerate(EVERY) if each.architecture == "vit_1" and each.resolution == 224]
    said = predict_latency(
        POINTS[smallest], POINTS[SPREAD_OVER_SIZES], log_ms[SPREAD_OVER_SIZES], LATENCY, REFERENCE.middle
    )
    in_proportion = POINTS.base[smallest] + (log_ms - POINTS.base)[47]
    assert abs(said.mean[0] - log_ms[smallest][0]) < 0.4
    assert abs(in_proportion[0] - log_ms[smallest][0]) > 1


def test_one_measurement_leaves_the_overhead_open() -> None:
    log_ms = truth(1.0)
    one = predict_latency(POINTS, POINTS[[47]], log_ms[[47]], LATENCY, REFERENCE.middle)
    many = predict_latency(POINTS, POINTS[SPREAD_OVER_SIZES], log_ms[SPREAD_OVER_SIZES], LATENCY, REFERENCE.middle)
    assert np.median(one.variance) > 2 * np.median(many.variance)


def test_twice_the_time_doubles_every_latency() -> None:
    log_ms = truth(1.0)[SPREAD_OVER_SIZES]
    one, two = (
        predict_latency(POINTS, POINTS[SPREAD_OVER_SIZES], log_ms + more, LATENCY, REFERENCE.middle)
        for more in (0.0, np.log(2))
    )
    assert two.mean - one.mean == pytest.approx(np.log(2), rel=1e-3)


def test_no_overhead_changes_nothing() -> None:
    same = with_overhead(POINTS, -np.inf)
    assert same.base == pytest.approx(POINTS.base)
    assert same.variance == pytest.approx(POINTS.variance)
