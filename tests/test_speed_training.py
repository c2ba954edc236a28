"""GPU-hours: from own runs, else from forward time, else nothing but the work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from advise_world import conditions, measured
from speed_world import workload

from luma_cli.speed.model import SpeedModel, TrainedRun, num_images_seen, trained_runs
from luma_cli.speed.quantity import Quantity
from luma_cli.store.profiles import Measured
from luma_cli.store.records import Environment, RunRecord

GPU = conditions(device="cuda", device_name="New GPU", dtype="bfloat16")
ROWS = [measured("vit_base_patch16_224", 10.0, conditions=GPU, images_per_second=200.0)]
LOAD = workload("vit_3", 512, gmacs=100.0)


def record(**fields: Any) -> RunRecord:
    """100 steps of 16 images in 80 s on two GPUs: 100 ms of a GPU per image."""
    values: dict[str, Any] = {
        "run_id": "one",
        "folder": "",
        "config": {"head": {"num_classes": 150}, "recipe": {}},
        "environment": Environment({"device_name": "New GPU"}, {}),
        "backbone": "vit",
        "timm_name": "vit_3.tag",
        "pretraining": "",
        "weights": "random",
        "resolution": 512,
        "head": "luma",
        "dataset": "ade20k",
        "recipe": "ade20k",
        "seed": 0,
        "num_steps": 100,
        "batch": 16,
        "num_processes": 2,
        "step": 100,
        "seconds": 80.0,
        "started_at": "2026-01-01",
        "facts": {"macs": 100 * 10**9, "params": 10**7, "dtype": "bfloat16"},
    }
    return RunRecord(**{**values, **fields})


def hours(model: SpeedModel, **fields: Any) -> Quantity:
    found = model.quantity("gpu_hours", replace(LOAD, **fields))
    assert found is not None
    assert 0 < found.low < found.value < found.high
    return found


def runs(*records: RunRecord) -> list[TrainedRun]:
    return trained_runs(records)


def rows(factor: float = 1.0) -> list[Measured]:
    return [replace(row, images_per_second=200.0 / factor, latency_ms=10.0 * factor) for row in ROWS]


def test_an_own_run_of_the_very_model_gives_its_rate() -> None:
    found = hours(SpeedModel.load(ROWS, None, runs=runs(record())))
    assert found.value == pytest.approx(0.1 * 31 * 1263 * 16 / 3600)
    assert (found.origin, found.extrapolated) == ("measured", False)


def test_other_models_are_predicted_from_own_runs() -> None:
    model = SpeedModel.load(ROWS, None, runs=runs(record()))
    found = hours(model, architecture="vit_4", macs=200 * 10**9)
    assert found.origin == "predicted"
    assert "1 own training run on this device" in found.note
    assert found.value == pytest.approx(2 * hours(model).value, rel=0.3)


def test_twice_as_slow_runs_double_the_hours() -> None:
    one, two = (SpeedModel.load(ROWS, None, runs=runs(record(seconds=each))) for each in (80.0, 160.0))
    other = {"architecture": "vit_4", "macs": 200 * 10**9}
    assert hours(two, **other).value == pytest.approx(2 * hours(one, **other).value, rel=1e-3)


def test_without_own_runs_forward_time_and_a_ratio() -> None:
    one, two = (hours(SpeedModel.load(rows(factor), None)) for factor in (1.0, 2.0))
    assert two.value == pytest.approx(2 * one.value, rel=1e-3)
    assert "no own training run on this device" in one.note
    assert one.high / one.low > 2
    elsewhere = replace(runs(record())[0], device_name="Other GPU")
    assert hours(SpeedModel.load(ROWS, None, runs=[elsewhere])).value == one.value


def test_a_device_that_only_trained_is_known_by_its_runs() -> None:
    model = SpeedModel.load([], "new gpu", runs=runs(record()))
    assert hours(model).origin == "measured"
    assert model.quantity("ms", LOAD) is None
    assert model.why("gpu_hours") == ""


def test_trainings_on_a_processor_are_of_its_class() -> None:
    environment = Environment({"device_name": "New CPU", "device": "cpu"}, {})
    trained = runs(record(environment=environment, facts={"dtype": "float32"}))
    assert SpeedModel.load([], None, runs=trained).speed_class == ("cpu fp32", "none")


def test_nothing_on_the_device_leaves_the_work() -> None:
    model = SpeedModel.load([], None)
    assert model.quantities("gpu_hours", [LOAD, LOAD]) == [None, None]
    assert "luma" in model.why("gpu_hours")


def test_trainings_follow_the_usual_recipe_of_the_dataset() -> None:
    assert num_images_seen(150) == 31 * 1263 * 16
    assert num_images_seen(19) == 107 * 185 * 16
    assert num_images_seen(7) is None
    trained = SpeedModel.load(ROWS, None, runs=runs(record()))
    assert trained.quantity("gpu_hours", replace(LOAD, num_classes=7)) is None


@pytest.mark.parametrize(
    "fields",
    [{"step": 5}, {"seconds": 0.0}, {"config": {"recipe": {"freeze_backbone": True}}}, {"config": {"imports": ("a",)}}],
)
def test_runs_that_tell_nothing_are_left_out(fields: dict[str, Any]) -> None:
    assert runs(record(**fields)) == []
