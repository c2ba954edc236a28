from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from accuracy_world import dense, own, row, some_rows

from luma_cli.accuracy import effects as observations
from luma_cli.accuracy import fit as variances
from luma_cli.accuracy.effects import GROUPS, MAX_SEEDS, Observations, observe, usable
from luma_cli.accuracy.fit import (
    Components,
    Fit,
    covariance,
    fit,
    initial,
    learn,
    leave_out,
    load_components,
    to_toml,
    without_slips,
)


@pytest.fixture(scope="module")
def known() -> Components:
    return load_components()


@pytest.fixture(scope="module")
def observed(known: Components) -> Observations:
    return observe(some_rows(), known.sensitivity)


@pytest.fixture(scope="module")
def conditioned(observed: Observations, known: Components) -> Fit:
    return fit(observed, known)


def posterior(observed: Observations, known: Components) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the effects by Bayesian linear regression in its information form."""
    design, precision = dense(observed), 1 / known.noise_sds(observed) ** 2
    spread = np.linalg.inv(np.diag(1 / known.effect_sds(observed) ** 2) + design.T @ (precision[:, None] * design))
    return spread @ design.T @ (precision * observed.log_error), spread


def test_the_covariance_is_the_design_times_the_prior(observed: Observations, known: Components) -> None:
    scaled = dense(observed) * known.effect_sds(observed)
    expected = scaled @ scaled.T + np.diag(known.noise_sds(observed) ** 2)
    assert np.allclose(covariance(observed, known), expected, rtol=1e-12, atol=1e-12)


def test_the_posterior_mean_is_that_of_bayesian_regression(conditioned: Fit, known: Components) -> None:
    mean, _ = posterior(conditioned.observations, known)
    assert np.allclose(conditioned.effects(), mean, rtol=1e-5, atol=1e-8)


def test_draws_have_the_posterior_mean_and_covariance(conditioned: Fit, known: Components) -> None:
    mean, spread = posterior(conditioned.observations, known)
    draws = conditioned.draws(num_draws=4000).astype(np.float64)
    sds = np.sqrt(np.diag(spread))
    assert draws.shape == (4000, len(mean))
    assert np.max(np.abs(draws.mean(axis=0) - mean) / sds) < 4.5 / np.sqrt(4000)
    off = np.abs(np.cov(draws.T) - spread) / np.outer(sds, sds)
    assert off.max() < 6 / np.sqrt(4000)  # the largest of 90,000 standard errors of a correlation
    assert np.sqrt((off**2).mean()) < 1.2 / np.sqrt(4000)


def test_draws_depend_on_the_seed_alone(conditioned: Fit) -> None:
    assert np.array_equal(conditioned.draws(50, seed=1), conditioned.draws(50, seed=1))
    assert not np.array_equal(conditioned.draws(50, seed=1), conditioned.draws(50, seed=2))


def test_sums_that_the_rows_pin_down_survive_single_precision(conditioned: Fit, known: Components) -> None:
    """Levels have a prior sd of 3 and a row's sum a posterior sd below 0.01: errors of rounding must not show there."""
    design = dense(conditioned.observations)
    mean, spread = posterior(conditioned.observations, known)
    sums = conditioned.draws(num_draws=2000).astype(np.float64) @ design.T
    sds = np.sqrt(np.einsum("np,pq,nq->n", design, spread, design))
    assert np.max(np.abs(sums.mean(axis=0) - design @ mean) / sds) < 0.12
    assert np.allclose(sums.std(axis=0) / sds, 1, atol=0.1)


@pytest.mark.parametrize("by", ["backbone", "source", "dataset"])
def test_leaving_out_is_refitting_without(conditioned: Fit, known: Components, by: str) -> None:
    observed = conditioned.observations
    labels = [getattr(subject, by) for subject in observed.subjects]
    means, sds = leave_out(conditioned, labels)
    matrix = covariance(observed, known)
    for label in sorted(set(labels))[:5]:
        out = np.array([each == label for each in labels])
        gain = matrix[np.ix_(out, ~out)] @ np.linalg.inv(matrix[np.ix_(~out, ~out)])
        assert np.allclose(means[out], gain @ observed.log_error[~out], rtol=1e-4, atol=1e-6)
        left = matrix[np.ix_(out, out)] - gain @ matrix[np.ix_(~out, out)]
        assert np.allclose(sds[out], np.sqrt(np.diag(left)), rtol=1e-5)


def test_the_gradient_of_the_likelihood_is_its_finite_difference(known: Components) -> None:
    observed = observe(some_rows(25), known.sensitivity)
    value, effects, noises = variances._loss(observed, known)
    names = list(GROUPS)
    for name in ("level", "size", "tokens", "objective", "weights", "weights, frozen", "head"):
        step = 1e-5
        up, down = (
            replace(known, effects={**known.effects, name: known.effects[name] * np.exp(sign * step)})
            for sign in (1, -1)
        )
        slope = (variances._loss(observed, up)[0] - variances._loss(observed, down)[0]) / (2 * step)
        assert effects[names.index(name)] == pytest.approx(slope, rel=1e-3, abs=1e-3)
    for index, name in enumerate(observed.noises):
        up = replace(known, noises={**known.noises, name: known.noises[name] * np.exp(1e-5)})
        assert noises[index] == pytest.approx((variances._loss(observed, up)[0] - value) / 1e-5, rel=1e-2, abs=1e-2)


def test_learning_raises_the_density_and_leaves_what_is_stated(known: Components) -> None:
    start = replace(initial(), sensitivity=known.sensitivity)
    observed = observe(some_rows(25), known.sensitivity)
    learned, density = learn(observed, start, max_steps=8)
    assert density > -variances._loss(observed, start)[0]
    assert all(sd > 0 for sd in (*learned.effects.values(), *learned.noises.values()))
    assert all(learned.effects[name] == group.sd for name, group in GROUPS.items() if group.fixed)
    assert set(learned.noises) == set(observed.noises)


def test_shipped_components_name_the_groups_and_nothing_else(known: Components) -> None:
    assert set(known.effects) == set(GROUPS)
    assert all(0 < sd < 4 for sd in (*known.effects.values(), *known.noises.values()))
    assert "luma" not in to_toml(known, "caption")  # stated, not learned


def test_the_order_of_the_rows_does_not_matter(known: Components) -> None:
    rows = some_rows(30)
    shuffled = random.Random(3).sample(rows, len(rows))
    first, second = (fit(observe(each, known.sensitivity), known) for each in (rows, shuffled))
    assert first.observations.keys == second.observations.keys
    assert np.array_equal(first.effects(), second.effects())
    assert np.array_equal(first.draws(20), second.draws(20))


def test_rows_of_one_id_that_differ_are_ordered_too(known: Components) -> None:
    rows = [row(miou=44.0, id="x"), row(miou=46.0, id="x"), row("swin_small", 47.0, id="x")]
    first, second = (observe(each, known.sensitivity) for each in (rows, rows[::-1]))
    assert np.array_equal(first.log_error, second.log_error)


def test_a_row_that_stands_twice_counts_once(known: Components) -> None:
    rows = [row(miou=44.0), row("swin_small", 46.0)]
    assert len(observe([*rows, *rows], known.sensitivity)) == 2


def test_without_slips_nothing_changes(conditioned: Fit) -> None:
    assert without_slips(conditioned) is conditioned


def test_a_slip_is_a_fit_with_more_noise_there(known: Components) -> None:
    rows = [row(f"swin_{size}", points) for size, points in (("tiny", 45.0), ("small", 1.0), ("base", 48.0))]
    found = without_slips(fit(observe(rows, known.sensitivity), known))
    again = fit(found.observations, known)
    assert [each > 20 for each in found.observations.noise_factor] == [
        each.backbone == "swin_small" for each in found.observations.subjects
    ]
    assert np.allclose(found.inverse, again.inverse, rtol=1e-6)
    assert np.allclose(found.effects(), again.effects(), rtol=1e-5, atol=1e-9)


def test_rows_that_contradict_each_other_meet_in_the_middle(known: Components) -> None:
    rows = [row(miou=40.0), row(miou=50.0)]
    conditioned = without_slips(fit(observe(rows, known.sensitivity), known))
    design = dense(conditioned.observations)
    both = design @ conditioned.effects()
    assert both[0] == pytest.approx(both[1])
    assert both[0] == pytest.approx(conditioned.observations.log_error.mean(), abs=0.01)


@pytest.mark.parametrize("miou", [0.0, 100.0, float("nan"), -3.0, float("inf")])
def test_a_training_that_failed_is_not_evidence(known: Components, miou: float) -> None:
    rows = [row(), row(miou=miou)]
    assert [usable(each) for each in rows] == [True, False]
    assert np.isfinite(observe(rows, known.sensitivity).log_error).all()


def test_other_weights_than_those_named_are_not_evidence() -> None:
    assert not usable(row(provenance="own run", recipe="measured here: weights random"))
    assert usable(row(provenance="own run", recipe="measured here: recipe ade20k changed"))


def test_no_evidence_is_the_prior(known: Components) -> None:
    nothing = fit(observe([], known.sensitivity), known)
    assert nothing.effects().shape == (0,)
    assert nothing.draws(10).shape == (10, 0)


def test_more_seeds_are_less_noise_up_to_a_limit(known: Components) -> None:
    def factor(**fields: object) -> float:
        return float(observe([row(**fields)], known.sensitivity).noise_factor[0])

    assert factor(seeds=4) == pytest.approx(factor() / 2)
    assert factor(seeds=10**9) == factor(seeds=MAX_SEEDS)
    assert factor(doubtful="an outlier") == 2 * factor()


def test_own_runs_that_differ_in_the_seed_alone_are_one_observation(known: Components) -> None:
    runs = [own("swin_tiny", 44.0 + number / 100, id=f"run {number:03d}") for number in range(100)]
    observed = observe([*runs, row(), own("swin_tiny", 43.0, height=640, width=640)], known.sensitivity)
    assert len(observed) == 3
    assert len(observed.rows) == 102
    mious = observed.percent(observed.log_error)
    assert sorted(mious.tolist()) == pytest.approx([43.0, 44.5, 45.0], abs=0.02)
    assert min(observed.noise_factor) == pytest.approx(1 / np.sqrt(MAX_SEEDS))


def test_two_seeds_weigh_like_two_rows(known: Components) -> None:
    base = [row(), row("vit_base_patch16_224", 46.0, head="eomt")]
    runs = [own("swin_tiny", points, id=f"run {points}") for points in (43.0, 43.4)]
    together = fit(observe([*base, *runs], known.sensitivity), known)
    apart = fit(observe([*base, replace(runs[0], miou_percent=float(100 - np.sqrt(57.0 * 56.6)), seeds=2)],
                        known.sensitivity), known)  # fmt: skip
    assert together.observations.keys == apart.observations.keys
    assert np.allclose(together.effects(), apart.effects())


def test_evidence_without_end_is_thinned(known: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observations, "MOST_OBSERVATIONS", 20)
    rows = [row(miou=40 + number / 100, id=f"{number:03d}") for number in range(90)]
    observed = observe(rows, known.sensitivity)
    assert len(observed) == 20
    assert len(observed.rows) == 90
    assert observed.ids[0] == "000"
    assert int(observed.ids[-1]) > 80


def test_the_noise_of_an_unmeasured_dataset_is_the_largest_of_its_regime(known: Components) -> None:
    assert known.noise("coco, frozen") == max(known.noises["ade20k, frozen"], known.noises["cityscapes, frozen"])
    assert known.noise("coco, fine-tuned") < known.noise("coco, frozen")
    assert Components({}, {}, {}).noise("coco, fine-tuned") > 0
