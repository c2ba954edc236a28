"""What is said of one device: measured numbers as they are, predictions with intervals, nothing where nothing is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from advise_world import conditions, measured
from hypothesis import given
from hypothesis import strategies as st
from speed_world import LEVELS, table, workload

from luma_cli.errors import UsageError
from luma_cli.speed import reference
from luma_cli.speed.model import SpeedModel
from luma_cli.speed.quantity import Quantity
from luma_cli.speed.reference import lineup_in
from luma_cli.store.profiles import Measured

NEW_GPU = conditions(device="cuda", device_name="New GPU", dtype="bfloat16")
TIMES = (("conv_1", 256), ("conv_6", 384), ("vit_2", 256), ("vit_5", 384), ("mixer_4", 224))


@pytest.fixture(autouse=True)
def small_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The small table in place of the shipped one, also in what is kept of it for the tests that follow."""
    kept = (reference.lineup, reference.by_specification)
    monkeypatch.setattr(reference, "load_table", table)
    for each in kept:
        each.cache_clear()
    yield
    for each in kept:
        each.cache_clear()


def row(architecture: str, resolution: int, factor: float = 1.0, **fields: Any) -> Measured:
    """A measurement on a GPU of the world's level 0.2 ms per GMAC at batch 1 and 0.1 at the plateau."""
    load = workload(architecture, resolution)
    ms = 0.2 * load.macs / 1e9 * factor  # type: ignore[operator]
    values = {"latency_ms": ms, "images_per_second": 2000 / ms, "macs": load.macs, "conditions": NEW_GPU}
    return measured(f"{architecture}.tag", resolution=resolution, **{**values, **fields})


def rows(factor: float = 1.0) -> list[Measured]:
    return [row(*each, factor=factor) for each in TIMES]


def said(model: SpeedModel, kind: Any, *args: Any, **fields: Any) -> Quantity:
    quantity = model.quantity(kind, workload(*args, **fields))
    assert quantity is not None
    assert quantity.low <= quantity.value <= quantity.high
    assert quantity.kind == kind
    return quantity


def test_what_was_measured_is_returned_as_it_is() -> None:
    model = SpeedModel.load(rows(), "New GPU")
    ms = rows()[2].latency_ms
    assert ms is not None
    assert said(model, "ms", "vit_2", 256).value == ms
    assert said(model, "fps", "vit_2", 256).value == 1000 / ms
    assert said(model, "images_per_second", "vit_2", 256).value == 2000 / ms
    assert said(model, "bytes", "vit_2", 256).value == 2**30
    assert said(model, "joules", "vit_2", 256).value == 2.0
    assert all(said(model, kind, "vit_2", 256).origin == "measured" for kind in ("ms", "fps", "bytes", "joules"))


def test_other_segmenters_are_predicted_near_the_truth_and_say_so() -> None:
    model = SpeedModel.load(rows(), "new gpu")
    found = said(model, "ms", "vit_3", 256)
    assert found.origin == "predicted"
    assert found.value == pytest.approx(0.2 * 1.5**3 * (256 / 224) ** 2, rel=0.25)
    rate = said(model, "images_per_second", "vit_3", 256)
    assert rate.value == pytest.approx(2000 / found.value, rel=0.2)


@pytest.mark.parametrize("kind", ["ms", "fps", "images_per_second", "joules"])
def test_twice_the_time_doubles_every_predicted_time(kind: Any) -> None:
    one, two = (SpeedModel.load(rows(factor), None) for factor in (1.0, 2.0))
    slower = said(two, kind, "conv_4", 256).value / said(one, kind, "conv_4", 256).value
    # Energy per image was measured as it is: twice the time at half the power.
    assert slower == pytest.approx({"ms": 2.0, "fps": 0.5, "images_per_second": 0.5, "joules": 1.0}[kind], rel=1e-3)


def test_many_at_once_are_as_one_at_a_time() -> None:
    model = SpeedModel.load(rows(), None)
    loads = [workload("vit_2"), workload("conv_7", 512), workload("unheard_3"), workload("mixer_4", 224)]
    for kind in ("ms", "images_per_second", "bytes", "joules", "params", "macs"):
        for one, other in zip(model.quantities(kind, loads), map(partial(model.quantity, kind), loads), strict=True):
            assert one is not None
            assert other is not None
            assert replace(one, value=0, low=0, high=0) == replace(other, value=0, low=0, high=0)
            assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))
    assert model.quantities("ms", []) == []


def test_counts_are_exact() -> None:
    model = SpeedModel.load([], None)
    assert said(model, "params", "vit_1") == Quantity("params", 1e7, 1e7, 1e7, "exact")
    assert model.quantity("macs", replace(workload(), macs=None)) is None


def test_nothing_is_said_without_a_device() -> None:
    model = SpeedModel.load([], None)
    assert model.quantity("ms", workload()) is None
    assert model.quantity("gpu_hours", workload()) is None
    assert "nothing was measured on any device" in model.why("ms")
    assert "nothing was measured on cuda" in SpeedModel.load([], "cuda").why("images_per_second")


def test_a_shipped_device_that_the_user_lacks_is_predicted_and_says_so() -> None:
    model = SpeedModel.load([], "gpu b")
    found = said(model, "images_per_second", "vit_3", 256, head="none")
    truth = 1000 / (LEVELS[1] * 0.9 * 1.5**3 * (256 / 224) ** 2)
    assert found.origin == "shipped"
    assert found.value == pytest.approx(truth)
    assert found.low < truth / 1.1
    with_head = said(model, "images_per_second", "vit_3", 256)
    assert with_head.origin == "predicted"
    assert "nothing was measured" in model.basis
    alone = said(model, "ms", "vit_3", 256)
    assert alone.origin == "predicted"
    assert alone.value > 1000 / with_head.value  # launches come on top
    assert alone.low < alone.value < alone.high <= 10 * alone.low
    latency, rate = (said(model, kind, "vit_7", 1024) for kind in ("ms", "images_per_second"))
    assert latency.extrapolated
    assert "from throughput at large batches and counted kernels" in latency.note
    assert latency.value > 1000 / rate.value
    assert model.quantity("joules", workload()) is None
    assert "no energy was measured" in model.why("joules")


def test_large_with_a_head_is_extrapolated_until_something_was_measured_there() -> None:
    before = SpeedModel.load(rows(), None)
    after = SpeedModel.load([*rows(), row("conv_2", 512)], None)
    one, two = said(before, "ms", "vit_3", 640), said(after, "ms", "vit_3", 640)
    assert one.extrapolated
    assert "extrapolated: no head was measured here at 512 px" in one.note
    assert not two.extrapolated
    assert two.high / two.low < one.high / one.low
    assert not said(before, "ms", "vit_3", 640, head="none").extrapolated


def test_rows_from_before_a_change_of_driver_are_evidence_with_a_wider_interval() -> None:
    now = json.dumps({"driver": "581"})
    before = SpeedModel.load(rows(), None)
    changed = SpeedModel.load(rows(), None, environment=now)
    assert [changed.bench.is_older(row) for row in changed.bench.related] == [True] * 5
    assert not changed.bench.rows
    one, two = said(before, "ms", "vit_2", 256), said(changed, "ms", "vit_2", 256)
    assert two.origin == "predicted"
    assert two.value == pytest.approx(one.value, rel=0.15)
    assert two.high / two.low > one.high / one.low
    assert "another head, driver, torch or power limit" in two.note
    assert said(changed, "bytes", "vit_2", 256).origin == "predicted"


def test_the_latest_environment_answers_even_with_fewer_rows() -> None:
    new = replace(NEW_GPU, environment=json.dumps({"driver": "581"}))
    late = row("vit_2", 256, factor=1.1, conditions=new, started_at="2026-02-01T00:00:00Z")
    model = SpeedModel.load([*rows(), late], None)
    assert said(model, "ms", "vit_2", 256).value == late.latency_ms
    assert said(model, "ms", "conv_1", 256).origin == "predicted"


def test_other_conditions_never_answer_nor_inform() -> None:
    compiled = [row(*each, factor=0.1, conditions=replace(NEW_GPU, compile="default")) for each in TIMES[:4]]
    alone, beside = SpeedModel.load(rows(), None), SpeedModel.load([*rows(), *compiled], None)
    assert said(alone, "ms", "vit_3") == said(beside, "ms", "vit_3")
    assert not beside.bench.related


def test_another_head_is_evidence_but_no_answer() -> None:
    eomt = replace(NEW_GPU, head="eomt")
    model = SpeedModel.load([row(*each, conditions=eomt) for each in TIMES], None)
    found = said(model, "ms", "vit_2", 256)
    assert found.origin == "predicted"
    asked = SpeedModel.load([row(*each, conditions=eomt) for each in TIMES], None, head="eomt")
    assert said(asked, "ms", "vit_2", 256, head="eomt").value == rows()[2].latency_ms


def test_the_number_of_classes_is_the_segmenters_own() -> None:
    cityscapes = row("vit_2", 256, factor=0.9, conditions=replace(NEW_GPU, num_classes=19))
    model = SpeedModel.load([*rows(), cityscapes], None)
    assert said(model, "ms", "vit_2", 256).value == rows()[2].latency_ms
    assert said(model, "ms", "vit_2", 256, num_classes=19).value == cityscapes.latency_ms
    assert said(model, "ms", "conv_1", 256, num_classes=19).origin == "predicted"


def test_flagged_rows_and_the_users_own_modules_inform_nothing() -> None:
    bad = [row("vit_3", 256, 9.0, flags=("throttled",)), row("vit_3", 256, 9.0, own_module=True, name="vit_4")]
    found = said(SpeedModel.load([*rows(), *bad], None), "ms", "vit_3", 256)
    assert found.value == said(SpeedModel.load(rows(), None), "ms", "vit_3", 256).value


def test_several_devices_are_asked_about() -> None:
    other = row("vit_2", 256, conditions=replace(NEW_GPU, device_name="Old GPU"))
    with pytest.raises(UsageError, match="measured on 2 devices"):
        SpeedModel.load([*rows(), other], None)


def test_without_a_table_of_the_class_only_costs_carry_over() -> None:
    cpu = conditions(device_name="Slow CPU")
    model = SpeedModel.load([row(*each, conditions=cpu) for each in TIMES], None)
    found = said(model, "ms", "vit_3", 256)
    assert found.value == pytest.approx(0.2 * 1.5**3 * (256 / 224) ** 2, rel=0.5)
    assert found.high / found.low > 1.5
    assert "multiply-adds alone" in model.basis


def test_noisy_rows_have_wider_intervals() -> None:
    noisy = said(SpeedModel.load([row("vit_2", 256, noisy=("latency",))], None), "ms", "vit_2", 256)
    clean = said(SpeedModel.load([row("vit_2", 256)], None), "ms", "vit_2", 256)
    assert noisy.high / noisy.low > clean.high / clean.low
    assert "noisy" in noisy.note


def test_anchors_leave_out_what_was_measured() -> None:
    model = SpeedModel.load(rows(), None)
    loads = [workload(name, side) for name, side in TIMES] + [workload("conv_3"), workload("vit_7", 1024)]
    found = model.anchors(loads, 5)
    assert {each.architecture for each in found} == {"conv_3", "vit_7"}
    assert model.anchors(loads[:5], 2) == []


@given(st.integers(0, 2**31))
def test_intervals_hold_the_truth_as_often_as_they_say(seed: int) -> None:
    """In worlds where family, network and noise move log time as the model has it; a weak bound for each world."""
    rng = np.random.default_rng(seed)
    known = lineup_in(table(), ("cuda half", "none")).reference
    loads = [workload(name, side) for name in ("conv_2", "conv_5", "vit_1", "vit_6", "mixer_3") for side in (224, 384)]
    points = known.points(loads)
    family = {name: rng.normal(0, 0.08) for name in ("conv", "vit", "mixer")}
    truth = points.base + 1.0 + [family[name] for name in points.families] + rng.normal(0, 0.05, len(loads))
    seen = [
        row(load.architecture, load.resolution, latency_ms=float(np.exp(value)))
        for load, value in zip(loads[::2], truth[::2], strict=True)
    ]
    found = SpeedModel.load(seen, None).quantities("ms", loads[1::2])
    inside = [
        each is not None and each.low <= np.exp(value) <= each.high
        for each, value in zip(found, truth[1::2], strict=True)
    ]
    assert sum(inside) >= 2


def test_a_prediction_too_wide_to_decide_by_is_not_given() -> None:
    cpu = conditions(device_name="Slow CPU")
    one = SpeedModel.load([row("vit_2", 256, conditions=cpu)], None)
    several = SpeedModel.load([row(*each, conditions=cpu) for each in TIMES], None)
    loads = [workload(f"{family}_{size}", 640) for family in ("conv", "vit", "mixer") for size in range(8)]
    given = [each for each in one.quantities("ms", loads) if each is not None]
    assert all(each.high <= 10 * each.low for each in given)
    assert len(given) < len(loads)
    assert None not in several.quantities("ms", [workload("vit_3", 256)])
