"""The recommendation from what ships: cards, cost table and published results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest
from advise_world import measured

from luma_cli.advise.answer import Recommendation
from luma_cli.advise.candidates import RESOLUTIONS, Candidate
from luma_cli.advise.recommend import load_candidates, recommend
from luma_cli.catalogue.costs import load_costs
from luma_cli.errors import BadResolution, NoAnswer
from luma_cli.speed.measured import Measured

pytestmark = pytest.mark.skipif(not load_costs(), reason="the cost table has not been generated yet")


@pytest.fixture(scope="module")
def shipped() -> list[Candidate]:
    return load_candidates("ade20k")


def answer(budgets: Sequence[str], **rest: object) -> Recommendation:
    return recommend(budgets, **rest)  # type: ignore[arg-type]


def test_candidates_cover_every_size_and_say_what_cannot_be_had(shipped: list[Candidate]) -> None:
    assert {each.resolution for each in shipped} == set(RESOLUTIONS)
    assert any(not each.public_weights for each in shipped)
    keys = [(each.timm_name, each.resolution) for each in shipped if each.public_weights]
    assert len(keys) == len(set(keys))


def test_a_budget_below_all_published_crops_is_ranked_by_cost_and_says_so() -> None:
    found = answer(["2gflops"], dataset="cityscapes")
    assert (found.scale, found.ranked_by) == (None, "macs")
    assert all(row.prediction is None and not row.evidence for row in found.rows)
    assert "no accuracy evidence on cityscapes" in found.notes[0]


@pytest.mark.parametrize(
    ("dataset", "limit"),
    [(dataset, limit) for dataset in ("ade20k", "cityscapes") for limit in (50, 100, 200, 400, 1000)],
)
def test_every_usual_budget_is_answered_on_one_scale(dataset: str, limit: int) -> None:
    found = answer([f"{limit}gflops"], dataset=dataset)
    assert found.rows
    assert found.scale
    for row in (*found.rows, *found.without_evidence, *(row for each in found.other_scales for row in each.rows)):
        assert row.candidate.macs is not None
        assert row.candidate.macs <= limit * 1e9
        assert row.candidate.public_weights
    for row in found.rows:
        assert row.evidence
        assert {each.scale for each in row.evidence} == {found.scale}
        assert all(each.source in row.why for each in row.evidence)
    json.dumps(found.to_json(), allow_nan=False)


def test_more_budget_is_never_worse_on_the_same_scale() -> None:
    best: dict[object, float] = {}
    for limit in (50, 100, 200, 400, 800, 1600):
        found = answer([f"{limit}gflops"])
        prediction = found.rows[0].prediction
        assert prediction
        assert prediction.miou_percent is not None
        assert prediction.miou_percent >= best.get(found.scale, 0.0)
        best[found.scale] = prediction.miou_percent


def test_a_budget_in_time_prints_a_command_that_names_cards(shipped: list[Candidate]) -> None:
    with pytest.raises(NoAnswer) as nothing:
        answer(["20ms"])
    command = str(nothing.value).partition("run: luma profile ")[2]
    names = command.partition(" --res ")[0].split()
    assert 2 <= len(names) <= 4
    assert set(names) <= {each.name for each in shipped if each.public_weights}


def test_nothing_meets_a_tiny_budget() -> None:
    with pytest.raises(
        NoAnswer, match=r"nothing meets 0\.01gflops: the cheapest candidate is \S+ at 224 px with \S+ GFLOPs"
    ):
        answer(["0.01gflops"])


def test_a_size_outside_the_table_names_those_inside() -> None:
    with pytest.raises(BadResolution, match="at 500 px; recommend answers at --res 224"):
        answer(["200gflops"], resolutions=[500])


def test_two_measured_models_answer_a_budget_in_time() -> None:
    rows: list[Measured] = [measured("test_vit.r160_in1k", 4.0, 64), measured("convnext_tiny", 90.0, 512)]
    found = answer(["500ms"], measured=rows, device="cpu")
    assert found.conditions
    assert {row.candidate.architecture for row in found.rows} <= {"test_vit", "convnext_tiny"}
    assert any(row.candidate.architecture == "convnext_tiny" for row in found.rows)


def test_cold_without_heavy_imports() -> None:
    code = (
        "import sys, time; from luma_cli.advise.recommend import recommend; recommend(['200gflops']); "
        "print(time.process_time(), [name for name in ('torch', 'timm', 'numpy', 'scipy') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, heavy = printed.split(" ", 1)
    assert heavy == "[]\n"
    assert float(seconds) < 0.6, "0.25 s on a quiet machine"
