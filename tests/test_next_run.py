"""What to train next: gain per cost, batches within the hours, proxies, and lines that really parse."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import typer
from advise_world import TableModel, TableSpeed, candidate, own_run

from luma_cli.advise import candidates as shipped
from luma_cli.advise.costs import price
from luma_cli.advise.gain import LEAST_PROMISE, RunGains, centred
from luma_cli.advise.next import NextRuns, answer, next_runs
from luma_cli.advise.question import Question
from luma_cli.advise.setting import AdviceSetting
from luma_cli.catalogue.names import resolve
from luma_cli.cli.app import app
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.evidence.own_runs import OwnRow
from luma_cli.report.front import print_next
from luma_cli.train.config import Given, new_config
from luma_cli.units import parse_budget

# name -> GMACs, expected mIoU, sd
WORLD = {
    "vit_t.deit": (5.0, 40.0, 0.3),
    "vit_s.deit": (20.0, 46.0, 0.3),
    "vit_s.dinov3": (20.0, 46.0, 1.5),
    "vit_b.dinov3": (80.0, 50.0, 1.5),
    "swin_b.deit": (90.0, 42.0, 0.3),
}
POOL = [candidate(name, gmacs=gmacs, backbone_params=int(gmacs * 1e6)) for name, (gmacs, _, _) in WORLD.items()]
MODEL = TableModel({each.timm_name: WORLD[each.name][1:] for each in POOL})
HOURS = TableSpeed({each.architecture: {"gpu_hours": WORLD[each.name][0] / 10} for each in POOL})


def setting(
    *budgets: str, hours: bool = True, model: TableModel = MODEL, own: tuple[OwnRow, ...] = ()
) -> AdviceSetting:
    question = Question("ade20k", tuple(parse_budget(each) for each in budgets))
    speed = HOURS if hours else None
    return AdviceSetting(question, tuple(price(POOL, ["macs", "gpu_hours"], speed, "luma", 150)), own, model)


def names(found: NextRuns) -> list[str]:
    return [run.candidate.name for run in found.batch]


def test_uncertain_runs_on_the_front_come_first_and_the_dominated_never() -> None:
    found = answer(setting(), None, 5)
    assert found.ranked_by.endswith("per GPU-hour")
    assert names(found)[:2] == ["vit_s.dinov3", "vit_b.dinov3"]
    assert "swin_b.deit" not in names(found)


def test_the_batch_stays_within_the_hours() -> None:
    found = answer(setting(), 8.5, 5)
    assert sum(run.cost.value for run in found.batch) <= 8.5
    assert names(found)[0] == "vit_s.dinov3"
    assert "vit_b.dinov3" not in names(found)
    assert answer(setting(), 0.1, 5).batch == ()


def test_without_hours_training_is_counted_and_the_limit_not_applied() -> None:
    found = answer(setting(hours=False), 1.0, 2)
    assert found.hours is None
    assert any(
        "ranked by the multiply-adds of training; --budget-hours 1 is not applied" in note for note in found.notes
    )
    # 3 x 20 GMACs x 31 epochs of 20,210 crops
    assert next(run for run in found.batch if run.candidate.name == "vit_s.dinov3").cost.text == "37.6 PFLOP"


def test_what_was_trained_is_not_proposed_again() -> None:
    own = OwnRow(own_run(POOL[2], 47.0))
    assert "vit_s.dinov3" not in names(answer(setting(own=(own,)), None, 5))
    assert "vit_s.dinov3" in names(answer(setting(own=(replace(own, why_not=("recipe changed",)),)), None, 5))


def test_under_a_budget_runs_are_worth_what_they_save_in_regret() -> None:
    found = answer(setting("30gflops"), None, 3)
    assert names(found)[0] == "vit_s.dinov3"
    assert found.batch[0].purpose == "budget"
    # E max(46, 46 + 1.5 Z) - 46, a run of which has seed noise of 0.3
    assert found.batch[0].gain == pytest.approx(1.5**2 / np.hypot(1.5, 0.3) / np.sqrt(2 * np.pi), rel=0.1)
    assert {run.candidate.name for run in found.batch} <= {"vit_t.deit", "vit_s.deit", "vit_s.dinov3"}


def test_a_settled_recommendation_is_said_to_be_settled() -> None:
    sure = TableModel({each.timm_name: (WORLD[each.name][1] + ("dinov3" in each.name), 0.01) for each in POOL})
    found = answer(setting("30gflops", model=sure), None, 3)
    assert found.batch == ()
    assert any("no run is expected to improve the choice under 30gflops" in note for note in found.notes)


def test_no_evidence_gives_a_modest_first_run_and_says_so() -> None:
    found = answer(setting(model=TableModel({})), None, 3)
    assert names(found) == ["vit_b.dinov3"]
    assert found.batch[0].purpose == "first"
    assert "no evidence on ade20k" in found.batch[0].why


def test_proxies_are_a_pair_that_compares_with_itself() -> None:
    found = answer(setting(), None, 1)
    assert [run.candidate.name for run in found.proxies] == ["vit_s.dinov3", "vit_s.deit"]
    assert all("--head linear --epochs 4" in run.command for run in found.proxies)
    assert found.proxies[0].cost.value == pytest.approx(2.0 * 4 / 31)


def test_a_believed_run_is_worth_less_and_so_is_what_it_tells_of() -> None:
    shared = np.random.default_rng(0).normal(size=(2000, 1))
    own = np.random.default_rng(1).normal(size=(2000, 3)) * 0.1
    draws = np.array([50.0, 50.0, 45.0]) + np.column_stack((shared, shared, 0 * shared)) + own
    bench = RunGains(draws, places=[8.0, 8.1, 1.0], reference_cost=16.0)
    before = bench.gains([0, 1])
    bench.believer.believe(0)
    after = bench.gains([0, 1])
    assert (after < 0.6 * before).all()


def test_a_level_that_all_share_is_worth_nothing() -> None:
    level = np.random.default_rng(0).normal(size=(2000, 1))
    draws = np.array([40.0, 45.0]) + level
    assert centred(draws).std(axis=0) == pytest.approx(0, abs=1e-9)
    assert centred(draws).mean(axis=0) == pytest.approx(draws.mean(axis=0))


def test_a_run_is_worth_something_through_the_candidate_that_it_moves() -> None:
    """The second run shares all with the first, which is a rival of the best; the last is a rival by itself."""
    random = np.random.default_rng(0)
    shared, alone = random.normal(size=(2000, 1)), random.normal(size=(2000, 1))
    flat = np.zeros((2000, 1))
    draws = np.array([50.0, 40.0, 50.5, 49.9]) + np.hstack((shared, shared, flat, 2 * alone))
    bench = RunGains(draws, [True] * 4)
    assert [bench.tells_of(run) for run in (0, 1, 3)] == [0, 0, 3]
    assert bench.gains([1])[0] == pytest.approx(bench.gains([0])[0], rel=0.05)


def test_what_is_not_shared_stays() -> None:
    draws = np.random.default_rng(0).normal([40.0, 45.0, 50.0], [0.2, 1.5, 0.2], size=(2000, 3))
    assert centred(draws).std(axis=0) == pytest.approx([0.2, 1.5, 0.2], rel=0.1)


def test_cheap_runs_that_promise_little_are_not_picked() -> None:
    draws = np.random.default_rng(0).normal([40.0, 50.0], [0.01, 2.0], size=(2000, 2))
    picks = RunGains(draws, places=[1.0, 1e3], reference_cost=2e3).pick([0, 1], [1e-6, 1.0], np.inf, 2)
    assert [pick.index for pick in picks][0] == 1
    assert LEAST_PROMISE == 0.5


def test_every_line_parses_and_means_the_candidate() -> None:
    """The lines of shipped candidates of every card, as the command line reads them."""
    pool = [each for each in shipped.load("ade20k", [512]) if each.public_weights][::12]
    table = TableModel({each.timm_name: (40 + np.log2(each.macs or 1) / 10, 1.0) for each in pool})
    for dataset in ("ade20k", "cityscapes"):
        question = Question(dataset)
        found = answer(AdviceSetting(question, tuple(price(pool, ["macs"], None, "luma", 150)), (), table), None, 12)
        runs = [*found.batch, *found.proxies]
        assert len(runs) > 3
        for run in runs:
            given = parsed(run.command)
            config = new_config(Given(**given))
            assert resolve(config.backbone).timm_name == run.candidate.timm_name
            assert (config.resolution, config.data, config.weights) == (512, dataset, "pretrained")
            assert config.recipe.name == dataset
            assert bool(config.recipe_changed) == (run.purpose == "proxy")


def parsed(line: str) -> dict[str, Any]:
    """What `luma train` understands of the line, as it hands it on."""
    luma, name, *words = shlex.split(line)
    assert (luma, name) == ("luma", "train")
    command = typer.main.get_command(app).get_command(None, "train")  # type: ignore[attr-defined]
    values = command.make_context("train", [*words, "--dry-run"]).params
    changes = (f"epochs={values['epochs']}",) if values["epochs"] else ()
    return {
        "backbone": values["backbone"],
        "data": values["data"],
        "resolution": values["resolution"],
        "recipe": values["recipe"],
        "changes": changes,
        "head": {"name": values["head"] or "luma"},
    }


def test_text_and_json() -> None:
    found = answer(setting(), 24.0, 2)
    text = io.StringIO()
    print_next(found, text)
    assert "within 24 GPU-hours" in text.getvalue()
    assert "   luma train vit_s.dinov3 --data ade20k --res 512\n" in text.getvalue()
    assert "2 GPU-hours measured, 46.0 mIoU expected" in text.getvalue()
    said = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert said["batch"][0]["expected_gain"] > 0
    assert said["schema"] == 1


def test_numbers_that_make_no_sense_and_a_budget_that_nothing_meets() -> None:
    with pytest.raises(UsageError, match="--top is 0"):
        next_runs(Question("ade20k"), top=0)
    with pytest.raises(UsageError, match="--budget-hours is -1"):
        next_runs(Question("ade20k"), hours=-1)
    with pytest.raises(NoAnswer, match="nothing meets 1gflops"):
        answer(setting("1gflops"), None, 3)
