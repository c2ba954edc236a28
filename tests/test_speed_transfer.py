"""The model of log time: what it must hold in any world, and intervals that cover in worlds drawn from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from speed_world import FACTORS, LEVELS, SETTINGS, table, workload

from luma_cli.speed.reference import COSTS_ONLY, lineup_in, reference_of, shipped_name
from luma_cli.speed.times import to_measure
from luma_cli.speed.transfer import SHIPPED, covariance, posterior, prior_variance, stem_of

EAGER = ("cuda half", "none")
EVERY = [
    workload(f"{family}_{size}", side, head="none") for family in FACTORS for size in range(8) for side in (224, 384)
]


def test_the_table_answers_for_its_own_device_and_for_other_sizes_of_its_networks() -> None:
    own = lineup_in(table(), EAGER, "GPU B").reference
    known, other = (own.points([workload("vit_3", side, head="none")]) for side in (256, 1024))
    ms = 1.5**3 * LEVELS[1] * 0.9
    assert np.exp(known.base[0]) == pytest.approx(ms * (256 / 224) ** 2)
    assert np.exp(other.base[0]) == pytest.approx(ms * (1024 / 224) ** 2)
    assert other.variance[0] > known.variance[0]


def test_a_network_that_the_table_has_not_follows_its_family() -> None:
    own = lineup_in(table(), EAGER, "GPU C").reference
    new = own.points([workload("vit_9", 224, gmacs=1.5**3.5, head="none")])
    assert np.exp(new.base[0]) == pytest.approx(1.5**3.5 * LEVELS[2] * 0.8, rel=0.15)
    assert new.families == ("vit",)
    assert new.variance[0] > 0.05


def test_classes_never_mix() -> None:
    eager = lineup_in(table(), EAGER, without="GPU A")
    assert {each.mode for each in eager.reference.settings} == {"eager"}
    alone = lineup_in(table(), ("cuda half", "default"), without="GPU A")
    assert alone.reference.settings == ()
    assert alone.spread == COSTS_ONLY
    assert not alone.reference.by_name


def test_one_measurement_moves_all_and_twice_the_time_doubles_every_prediction() -> None:
    others = lineup_in(table(), EAGER, without="GPU C")
    points = others.reference.points(EVERY)
    rng = np.random.default_rng(0)
    log_ms = rng.normal(1.0, 0.5, 4)
    one = posterior(points, points[[3, 9, 20, 33]], log_ms, SHIPPED)
    two = posterior(points, points[[3, 9, 20, 33]], log_ms + np.log(2), SHIPPED)
    assert np.exp(two.mean - one.mean) == pytest.approx(2.0, rel=1e-4)
    assert two.variance == pytest.approx(one.variance)
    assert (one.variance < prior_variance(points, SHIPPED)).all()


def test_covariance_and_its_diagonal_agree() -> None:
    points = lineup_in(table(), EAGER, without="GPU C").reference.points(EVERY)
    spread = replace(SHIPPED, scale=1.0)
    full = np.diag(covariance(points, points, spread)) + points.variance
    assert prior_variance(points, spread) == pytest.approx(full)
    assert np.linalg.eigvalsh(covariance(points, points, spread)).min() > -1e-9


@pytest.mark.parametrize("num", [1, 8])
def test_intervals_cover_in_worlds_drawn_from_the_model(num: int) -> None:
    points = lineup_in(table(), EAGER, without="GPU C").reference.points(EVERY)
    spread = replace(SHIPPED, scale=3.0)
    prior = covariance(points, points, spread) + np.diag(points.variance)
    root = np.linalg.cholesky(prior + 1e-10 * np.eye(len(points)))
    rng = np.random.default_rng(1)
    inside = []
    for _ in range(150):
        truth = points.base + root @ rng.normal(size=len(points))
        order = rng.permutation(len(points)).tolist()
        seen, rest = order[:num], order[num:]
        log_ms = truth[seen] + rng.normal(0, spread.noise, num)
        said = posterior(points[rest], points[seen], log_ms, spread)
        inside.append(np.abs(truth[rest] - said.mean) <= 1.2815515594 * np.sqrt(said.variance))
    assert np.mean(inside) == pytest.approx(0.8, abs=0.04)


def test_the_anchor_leaves_the_least_variance() -> None:
    points = lineup_in(table(), EAGER, without="GPU C").reference.points(EVERY)
    (best,) = to_measure(points, 1)
    left = [_left(points, index) for index in range(len(points))]
    assert left[best] == pytest.approx(min(left))


def _left(points, index: int) -> float:  # type: ignore[no-untyped-def]
    """Mean variance after measuring one, with the noise that a repeated measurement has."""
    total = covariance(points, points, SHIPPED) + np.diag(points.variance + SHIPPED.noise**2)
    return float(np.mean(np.diag(total) - total[:, index] ** 2 / total[index, index]))


def test_the_second_anchor_is_of_another_family_and_leaves_less_variance() -> None:
    points = lineup_in(table(), EAGER, without="GPU C").reference.points(EVERY)
    first, second = to_measure(points, 2)
    assert points.families[first] != points.families[second]
    before, one, two = (
        posterior(points, points[seen], points.base[seen], SHIPPED).variance.mean()
        for seen in ([], [first], [first, second])
    )
    assert two < one < 2 < 1000 < before


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", ""),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Max-Q"),
        ("Intel(R) Core(TM) i9-10940X CPU @ 3.30GHz", "CPU i9-10940X"),
        ("rtx", ""),
        ("cuda", ""),
        ("", ""),
    ],
)
def test_a_shipped_device_is_known_by_its_full_name(text: str, name: str) -> None:
    assert shipped_name(text) == name


def test_stems() -> None:
    assert stem_of("vit_base_patch16_siglip_384") == stem_of("vit_base_patch16_siglip_224") == "vit_base_patch16_siglip"
    assert stem_of("vit_base_patch14_dinov2") == "vit_base_patch14_dinov2"


def test_large_sides_can_be_left_out() -> None:
    small = reference_of(table(), SETTINGS[:1], own=True, max_side=300)
    assert {row.resolution for row in small.rows} == {224, 256}
