"""The scaling law is recovered, agrees with an independent estimator, and pools levels by offsets alone."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import scaling_world as world
from scipy.optimize import least_squares

from luma_cli.errors import NoAnswer
from luma_cli.scaling.law import PLAIN, Law, contrasts, fit, informative, missing
from luma_cli.scaling.series import ASSUMED


def size_exponent(law: Law) -> float:
    return law.split(PLAIN).size


def test_exact_runs_give_the_law_back() -> None:
    law = fit(world.runs(noise=0.0)).law
    assert (law.a, law.b) == pytest.approx((ASSUMED.a, ASSUMED.b), abs=1e-4)
    assert law.floor == pytest.approx(ASSUMED.floor, abs=0.02)
    assert law.error(86e6, 1024) == pytest.approx(world.error(86e6, 1024), abs=1e-4)
    assert law.noise_miou < 1e-3


def test_exponent_of_size_from_16_runs_is_within_5_hundredths() -> None:
    misses = [abs(size_exponent(fit(world.runs(seed)).law) - world.TRUE_SPLIT.size) for seed in range(80)]
    assert np.median(misses) <= 0.025
    assert np.quantile(misses, 0.9) <= 0.05


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_levels", [1, 3])
def test_no_start_of_another_estimator_finds_a_better_law(seed: int, num_levels: int) -> None:
    names, factors = ("a", "b", "c")[:num_levels], (1.0, 0.9, 1.2)
    points = [
        point
        for name, factor in zip(names, factors, strict=False)
        for point in world.runs(seed, level=name, factor=factor)
    ]
    found = fit(points)
    ordered = sorted(points, key=lambda point: point.level)
    params = np.array([point.params for point in ordered]) / 86e6
    tokens = np.array([point.tokens for point in ordered]) / 1024
    level = np.array([names.index(point.level) for point in ordered])
    log_error = np.log([point.error for point in ordered])
    scale = np.exp(log_error - log_error.mean())

    def residuals(values: np.ndarray) -> np.ndarray:
        floor, by_size, by_tokens, log_a, log_b, *offsets = values
        fitted = floor + by_size * params ** -np.exp(log_a) + by_tokens * tokens ** -np.exp(log_b)
        return scale * (log_error - np.log(fitted) - np.concatenate([[0.0], offsets])[level])

    random, best = np.random.default_rng(seed), np.inf
    low = [1e-9, 1e-9, 1e-9, np.log(0.01), np.log(0.01), *[-2.0] * (num_levels - 1)]
    high = [90.0, 90.0, 90.0, np.log(5), np.log(5), *[2.0] * (num_levels - 1)]
    for _ in range(6):
        start = [*random.uniform([10, 2, 2, -2.5, -1.5], [40, 25, 20, 0, 0.5]), *[0.0] * (num_levels - 1)]
        best = min(best, 2 * least_squares(residuals, start, bounds=(low, high), max_nfev=400).cost)
    loss = float(found.problem.loss(found.residuals))
    assert loss <= best * (1 + 1e-3)
    assert loss == pytest.approx(best, rel=0.02)


def test_levels_differ_by_a_factor_and_are_never_pooled_raw() -> None:
    points = [*world.runs(noise=0.0, level="one"), *world.runs(noise=0.0, level="two", factor=0.8)]
    law = fit(points).law
    assert law.levels == pytest.approx({"one": 1.0, "two": 0.8}, rel=1e-4)
    assert (law.a, law.b) == pytest.approx((ASSUMED.a, ASSUMED.b), abs=1e-3)
    raw = fit([replace(point, level="") for point in points]).law
    assert raw.noise_miou > 3 > law.noise_miou


def test_order_of_the_points_and_unit_of_size_do_not_matter() -> None:
    points = world.runs(3)
    law, other = fit(points).law, fit([replace(point, params=point.params * 1e3) for point in points[::-1]]).law
    assert (other.a, other.b, other.floor) == pytest.approx((law.a, law.b, law.floor), rel=1e-4)
    assert other.params_mean == pytest.approx(1e3 * law.params_mean)


def test_a_term_that_is_not_there_is_zero() -> None:
    flat = [replace(point, miou_percent=100 - world.error(point.params, 1024)) for point in world.runs(noise=0.0)]
    law = fit(flat).law
    assert law.by_tokens == pytest.approx(0.0, abs=1e-3)
    assert law.a == pytest.approx(ASSUMED.a, abs=0.01)


def test_huber_is_moved_less_by_a_wrong_result() -> None:
    points = world.runs(1)
    wrong = [replace(points[5], miou_percent=points[5].miou_percent - 6.0), *points[:5], *points[6:]]
    truth = world.TRUE_SPLIT.size
    assert abs(size_exponent(fit(wrong, huber=0.004).law) - truth) < abs(size_exponent(fit(wrong).law) - truth)


@pytest.mark.parametrize(
    ("sizes", "sides", "said"),
    [
        (2, 4, "2 sizes"),
        (4, 2, "2 resolutions"),
        (4, 1, "0 resolutions within a level, expected at least 3"),
        (0, 0, "0 sizes"),
    ],
)
def test_too_few_sizes_or_resolutions_are_refused(sizes: int, sides: int, said: str) -> None:
    points = world.runs(sizes=world.SIZES[4][:sizes], sides=world.SIDES[4][:sides])
    assert said in missing(points)
    with pytest.raises(NoAnswer, match=said):
        fit(points)


def test_sizes_count_only_where_a_level_compares_them() -> None:
    apart = [replace(point, level=str(point.params)) for point in world.runs()]
    assert contrasts(apart) == ([], contrasts(world.runs())[1])
    alone = replace(apart[0], level="alone")
    assert informative([alone, *apart[1:]]) == apart[1:]


def test_thousands_of_runs_of_one_model_are_looked_at_once() -> None:
    start = time.process_time()
    assert informative([world.runs()[0]] * 20_000) == []
    assert time.process_time() - start < 2
