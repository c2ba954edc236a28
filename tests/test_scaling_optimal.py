"""The best split of compute, exact elasticities, the next model, and designs of runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scaling_world as world
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BadResolution, NoAnswer, UnknownName, UsageError
from luma_cli.scaling.law import PAPER, PLAIN, ComputeSplit, Elasticity, Point, fit, split, tokens_of
from luma_cli.scaling.series import (
    Local,
    Model,
    Series,
    experiment,
    load_series,
    local,
    most_telling,
    next_model,
    parse_model,
    size_exponent_sd,
    target,
)

SIDES = (224, 384, 512, 640, 1024)
POSITIVE = st.floats(0.05, 3.0)


def power_series(p: float = 0.9, q: float = 1.2) -> Series:
    """Four sizes whose compute is exactly N^p T^q multiply-adds."""
    models = {
        (name, side): Model(name, side, params, round(params**p * tokens_of(side, side) ** q))
        for name, params in zip(("s", "b", "l", "h"), world.SIZES[4], strict=True)
        for side in SIDES
    }
    return Series("powers", ("s", "b", "l", "h"), models)


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_all_of_the_compute_is_spent(a: float, b: float, p: float, q: float) -> None:
    found = split(a, b, Elasticity(p, q))
    assert p * found.size + q * found.tokens == pytest.approx(1.0)
    assert found.size * a == pytest.approx(found.tokens * b)


def test_split_is_where_the_error_is_least() -> None:
    p, q = 0.9, 1.3
    best = []
    for budget in (1e11, 1e12):
        params = np.geomspace(1e6, 1e10, 20001)
        tokens = (budget / params**p) ** (1 / q)
        errors = 14 * (params / 86e6) ** -0.17 + 9 * (tokens / 1024) ** -0.83
        best.append(params[errors.argmin()])
    assert math.log10(best[1] / best[0]) == pytest.approx(split(0.17, 0.83, Elasticity(p, q)).size, abs=2e-3)


def test_a_useless_term_gets_nothing() -> None:
    assert split(0.2, 1.0, Elasticity(0.8, 1.5), has_tokens=False) == ComputeSplit(1.25, 0.0)
    assert split(0.2, 1.0, Elasticity(0.8, 2.0), has_size=False) == ComputeSplit(0.0, 0.5)


def test_ten_times_the_compute_by_the_paper() -> None:
    here = at("b", 512)[1]
    wanted = target(here, 10, PAPER)
    times = wanted.params / here.model.params, wanted.tokens / here.model.tokens
    assert times == pytest.approx((6.76, 1.58), abs=0.01)


def test_slopes_of_a_power_are_its_exponents() -> None:
    series = power_series()
    for model in series.models.values():
        found = local(series, model).elasticity
        assert (found.p, found.q) == pytest.approx((0.9, 1.2), abs=1e-4)


def test_attention_makes_resolution_dearer_at_high_resolution() -> None:
    series, name = load_series("vit_b.dinov3", HeadConfig())
    q = [local(series, series.model(name, side)).elasticity.q for side in (224, 512, 1024)]
    assert 1.0 < q[0] < q[1] < q[2] < 2.0
    at = local(series, series.model(name, 512))
    assert at.neighbours == ("vit_s_plus.dinov3@512", "vit_l.dinov3@512", "vit_b.dinov3@384", "vit_b.dinov3@640")
    assert 0.9 < at.elasticity.p < 1.0


def test_cost_of_a_series_is_that_of_the_segmenter() -> None:
    from luma_cli.catalogue.costs import load_costs
    from luma_cli.catalogue.head_cost import head_macs

    series, name = load_series("vit_base_patch16_dinov3.lvd1689m", HeadConfig())
    facts = load_costs()["vit_base_patch16_dinov3", 512]
    assert name == "vit_b.dinov3"
    assert series.model(name, 512).macs == facts.macs + head_macs(facts, HeadConfig())
    assert series.sizes[0] == "vit_s.dinov3"


@pytest.mark.parametrize("text", ["vit_b.dinov3", "@512", "vit_b@", "vit_b@big", ""])
def test_a_start_needs_a_name_and_pixels(text: str) -> None:
    with pytest.raises(UsageError, match="NAME@PIXELS"):
        parse_model(text)


def test_unknown_starts_are_refused() -> None:
    with pytest.raises(UnknownName):
        load_series("vit_bb.dinov33", HeadConfig())
    with pytest.raises(UsageError, match="belongs to no card"):
        load_series("vgg11", HeadConfig())
    with pytest.raises(BadResolution, match="expected one of 224"):
        power_series().model("b", 500)
    lonely = Series("one", ("b",), {("b", 512): power_series().model("b", 512)})
    with pytest.raises(NoAnswer, match="no neighbour in size"):
        local(lonely, lonely.model("b", 512))


def at(name: str, side: int) -> tuple[Series, Local]:
    series = power_series()
    return series, local(series, series.model(name, side))


@given(st.floats(1.01, 1e4), st.sampled_from(("s", "b", "l", "h")), st.sampled_from(SIDES))
def test_next_model_is_larger_and_never_over_budget(factor: float, name: str, side: int) -> None:
    series, here = at(name, side)
    found = next_model(series, here, target(here, factor, PAPER))
    if found is not None:
        assert here.model.macs < found.macs <= factor * here.model.macs
    else:
        assert all(each.macs > factor * here.model.macs for each in series.public(here.model.macs))


def test_next_model_by_a_law_has_the_least_error() -> None:
    series, here = at("b", 512)
    law = fit(world.runs(noise=0.0)).law
    wanted = target(here, 10, PAPER)
    found = next_model(series, here, wanted, law)
    assert found is not None
    within = [each for each in series.models.values() if here.model.macs < each.macs <= wanted.macs]
    assert world.error(found.params, found.tokens) == min(world.error(each.params, each.tokens) for each in within)


@pytest.mark.parametrize("factor", [1.0, 0.5, -3.0, math.nan, math.inf])
def test_more_compute_is_more_than_once(factor: float) -> None:
    with pytest.raises(UsageError, match="--more"):
        target(at("b", 512)[1], factor, PAPER)


def test_design_is_a_grid_and_knows_what_is_done() -> None:
    done = Point("run", "b", 86e6, tokens_of(512, 512), 50.0, own=True)
    found = experiment(power_series(), 3, PLAIN, [done])
    assert found is not None
    assert [each.model.label for each in found.runs if each.done] == ["b@512"]
    assert len(found.runs) == 9
    assert len(found.missing) == 8
    assert {each.model.resolution for each in found.runs} == {224, 512, 1024}
    assert found.missing[0].label == "s@224"
    assert experiment(power_series(), 5, PLAIN) is None


def test_expected_interval_agrees_with_simulation() -> None:
    grid = [(point.params, point.tokens) for point in world.runs()]
    exponents = [fit(world.runs(seed)).law for seed in range(80)]
    spread = np.std([law.b / (law.a + law.b) for law in exponents])
    assert size_exponent_sd(grid, PLAIN) == pytest.approx(spread, rel=0.3)
    assert size_exponent_sd(grid[:4], PLAIN) == math.inf


def test_most_telling_run_narrows_most_and_ties_are_cheap() -> None:
    points = [point for point in world.runs() if point.params < 800e6 or point.tokens < 1000]
    candidates = [model for (name, _), model in power_series().models.items() if name in ("s", "h")]
    found = most_telling(points, candidates, PLAIN)
    assert found is not None
    before = [(point.params, point.tokens) for point in points]
    after = {
        each.label: size_exponent_sd([*before, (each.params, each.tokens)], PLAIN, prior=True) for each in candidates
    }
    assert after[found.label] <= 1.02 * min(after.values())
    assert most_telling(points, [], PLAIN) is None
