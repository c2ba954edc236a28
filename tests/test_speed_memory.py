"""Peak memory: never below the weights, learned where it was measured, wide where it was not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from advise_world import conditions, measured

from luma_cli.speed.bench import Bench, bench_of
from luma_cli.speed.model import activations_of, predict_memory
from luma_cli.speed.quantity import Quantity, Workload
from luma_cli.store.profiles import Measured

NAMES = ("vit_small_patch16_224", "vit_base_patch16_224", "convnext_base", "vit_large_patch16_224")
BASE, SHARE = 0.8 * 2**30, 0.6


def load(name: str, resolution: int = 512, **fields: Any) -> Workload:
    return replace(Workload(name, resolution, macs=10**10, params=50_000_000), **fields)


def truth(name: str, resolution: int = 512) -> float:
    activations = activations_of(load(name, resolution))
    assert activations is not None
    return BASE + 4 * 50_000_000 + SHARE * 4 * activations


def row(name: str, resolution: int = 512, **fields: Any) -> Measured:
    return measured(name, resolution=resolution, memory_bytes=truth(name, resolution), **fields)


def one(bench: Bench, workload: Workload, dtype: str = "float32") -> Quantity:
    (found,) = predict_memory(bench, [workload], dtype)
    assert found is not None
    assert workload.params is not None
    assert workload.params * {"float32": 4, "bfloat16": 2}[dtype] <= found.low < found.value < found.high
    return found


def test_before_any_measurement_the_interval_is_wide_and_says_why() -> None:
    found = one(Bench(""), load(NAMES[1]))
    assert found.extrapolated
    assert "no memory was measured on any device, float32 weights assumed" in found.note
    assert found.low <= truth(NAMES[1]) <= found.high


def test_measurements_teach_base_and_share() -> None:
    bench = bench_of([row(name, side) for name in NAMES[:3] for side in (224, 512, 768)])
    found = one(bench, load(NAMES[3], 640))
    assert found.value == pytest.approx(truth(NAMES[3], 640), rel=0.05)
    assert found.low <= truth(NAMES[3], 640) <= found.high
    assert not found.extrapolated
    assert found.note == ""
    assert found.high - found.low < one(Bench(""), load(NAMES[3], 640)).high


def test_half_the_bytes_per_weight() -> None:
    heavy = load(NAMES[0], params=2 * 10**9)
    whole, half = (one(Bench("", conditions(dtype=dtype)), heavy, dtype) for dtype in ("float32", "bfloat16"))
    assert whole.value / half.value == pytest.approx(2, rel=0.2)


def test_large_sizes_are_marked_until_one_was_measured() -> None:
    small = bench_of([row(name, 224) for name in NAMES])
    assert "no memory was measured here at 512 px" in one(small, load(NAMES[1])).note
    assert not one(bench_of([row(NAMES[0])]), load(NAMES[1])).extrapolated


def test_what_nobody_counted_is_not_told() -> None:
    unknown = [load("nothing_of_the_kind", macs=None), load(NAMES[0], params=None)]
    assert predict_memory(Bench(""), unknown, "float32") == [None, None]


def test_counted_activations_are_taken_as_they_are() -> None:
    assert activations_of(load("anything", activations=7)) == 7
    with_head, without = activations_of(load(NAMES[0])), activations_of(load(NAMES[0], head="none"))
    assert with_head is not None
    assert without is not None
    assert with_head - without == 128**2 * (100 + 384)
