"""The recommendation from what ships: cards, cost table, published results and the model learned from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from advise_world import measured

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.advise import candidates as shipped
from luma_cli.advise.candidates import RESOLUTIONS
from luma_cli.advise.costs import workload
from luma_cli.advise.front import front_of
from luma_cli.advise.next import next_runs
from luma_cli.advise.question import Question
from luma_cli.advise.recommend import Recommendation, recommend
from luma_cli.advise.sweep import reversals, share_of_guesses, sweep
from luma_cli.catalogue.costs import load_costs
from luma_cli.errors import BadResolution, NoAnswer, NothingMeasured, UsageError
from luma_cli.evidence.evidence import load_reference
from luma_cli.speed.model import activations_of
from luma_cli.speed.quantity import segmenter_of

pytestmark = pytest.mark.skipif(not load_costs(), reason="the cost table has not been generated yet")


@pytest.fixture(scope="module")
def model(kept_fit: Path) -> AccuracyModel:
    return load_model(cache=kept_fit / "luma" / "accuracy")


def answer(model: AccuracyModel, *budgets: str, **rest: object) -> Recommendation:
    return recommend(budgets, fit=lambda _: model, **rest)  # type: ignore[arg-type]


def test_candidates_cover_every_size_once() -> None:
    pool = shipped.load("ade20k")
    assert {each.resolution for each in pool} == set(RESOLUTIONS)
    assert all(each.public_weights for each in pool)
    keys = [(each.timm_name, each.resolution) for each in pool]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(("dataset", "limit"), [("ade20k", 50), ("ade20k", 400), ("cityscapes", 200)])
def test_every_usual_budget_is_answered(model: AccuracyModel, dataset: str, limit: int) -> None:
    found = answer(model, f"{limit}gflops", dataset=dataset, with_reasons=True)
    assert len(found.rows) == 5
    assert len({row.candidate.timm_name for row in found.rows}) == 5
    assert found.next_run
    for row in found.rows:
        assert row.priced.costs["macs"].value <= limit * 1e9
        low, high = row.prediction.interval_80
        assert 0 < low < row.prediction.miou_percent < high < 100
        assert row.reasons
        assert row.reasons.effects
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize("dataset", ["ade20k", "cityscapes"])
def test_first_answers_rest_on_evidence_and_never_go_back(model: AccuracyModel, dataset: str) -> None:
    swept = sweep(dataset, fit=lambda _: model)
    assert len(swept) == 40
    assert share_of_guesses(swept) <= 0.1
    standings = [each.first.prediction.support.standing for each in swept if each.first is not None]
    assert standings.count("same series") <= 0.25 * len(swept)
    fine = sweep(dataset, [2 * 1.05**step for step in range(150)], fit=lambda _: model)
    assert share_of_guesses(fine) <= 0.1
    for first in range(len(fine) - 15):  # 15 steps of 5% are a doubling
        assert reversals(fine[first : first + 15]) <= 1


@pytest.mark.parametrize("dataset", ["ade20k", "cityscapes"])
def test_what_a_front_reaches_is_no_luck_of_many_guesses(model: AccuracyModel, dataset: str, tmp_path: Path) -> None:
    """At most two points above the best that anybody published with a fine-tuned head."""
    best = max(row.miou_percent for row in load_reference() if (row.dataset, row.regime) == (dataset, "fine-tuned"))
    front = front_of(Question(dataset), database=tmp_path / "luma.db", fit=lambda _: model)
    reached = [level for _, levels in front.backdrop.band for level in levels]
    assert best - 5 < max(reached) <= best + 2


def test_a_sweep_is_what_recommend_answers(model: AccuracyModel) -> None:
    for swept in sweep("ade20k", [6.0, 123.0, 1000.0], fit=lambda _: model):
        first = answer(model, f"{swept.gflops}gflops").rows[0]
        assert swept.first
        assert first.candidate == swept.first.candidate


def test_more_budget_is_never_worse(model: AccuracyModel) -> None:
    best = [
        max(row.prediction.miou_percent for row in answer(model, f"{limit}gflops", top=99).rows)
        for limit in (20, 100, 400)
    ]
    assert best == sorted(best)


def test_the_knee_and_an_answer_without_any_budget(model: AccuracyModel) -> None:
    knee = answer(model, dataset="cityscapes", objective="knee").rows[0]
    assert 0 < (knee.best or 0) <= 1


def test_a_device_whose_throughput_ships_answers_a_rate(model: AccuracyModel) -> None:
    found = answer(model, "60img/s", device="RTX 4090")
    for row in found.rows:
        assert row.priced.costs["images_per_second"].low >= 60
        assert row.priced.costs["images_per_second"].origin == "predicted"
    assert any("RTX 4090" in note for note in found.notes)


def test_a_budget_in_time_names_what_to_measure(model: AccuracyModel) -> None:
    with pytest.raises(NothingMeasured) as nothing:
        answer(model, "20ms")
    assert f"measure this machine: luma profile {nothing.value.name} --res 512" in str(nothing.value)
    assert nothing.value.name.endswith(("dinov3", "dinov2", "supervised_in1k", "supervised_in21k"))
    assert "--device 'RTX 4090'" in str(nothing.value)


def test_nothing_meets_a_tiny_budget(model: AccuracyModel) -> None:
    with pytest.raises(NoAnswer, match=r"nothing meets 0\.01gflops: the cheapest candidate is \S+ at 224 px with"):
        answer(model, "0.01gflops")


def test_a_size_outside_the_table_names_those_inside(model: AccuracyModel) -> None:
    with pytest.raises(BadResolution, match="at 500 px; use --res 224"):
        answer(model, "200gflops", resolutions=[500])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"dataset": "coco"}, "ade20k or cityscapes"), ({"pretrainings": ["x"]}, "dinov3"), ({"licences": ["x"]}, "mit")],
)
def test_what_is_not_known_names_what_is(model: AccuracyModel, wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        answer(model, "200gflops", **wrong)


def test_no_evidence_at_all_recommends_nothing_and_proposes_a_run() -> None:
    found = recommend("200gflops", fit=lambda _: load_model([]))
    assert found.rows == ()
    first = next_runs(found.question, fit=lambda _: load_model([])).batch[0]
    assert found.next_run.startswith(f"{first.command} (no evidence")


@pytest.mark.usefixtures("fitted")
def test_cold_without_torch_or_scipy() -> None:
    code = (
        "import sys, time; from luma_cli.advise.recommend import recommend; recommend(['200gflops']); "
        "print(time.process_time(), [name for name in ('torch', 'timm', 'pandas', 'scipy') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, heavy = printed.split(" ", 1)
    assert heavy == "[]\n"
    assert float(seconds) < 3, "0.5 s on a quiet machine"


def test_memory_is_predicted_of_the_very_segmenter_that_is_measured() -> None:
    """A candidate has the activations of a measured row of the same segmenter, the maps of the head among them."""
    (found, *_) = [each for each in shipped.load("ade20k") if each.timm_name == "vit_base_patch16_dinov3.lvd1689m"]
    row = measured(found.timm_name, resolution=found.resolution, params=found.params)
    assert activations_of(workload(found, "luma", 150)) == activations_of(segmenter_of(row))
    facts = load_costs()[found.architecture, found.resolution]
    assert (activations_of(workload(found, "luma", 150)) or 0) > facts.activations
