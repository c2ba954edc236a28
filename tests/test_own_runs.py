"""The user's own runs in a recommendation: ranked only when comparable, shown always, read from the store."""

from __future__ import annotations

import io
import json
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from advise_world import TableModel, TableSpeed, candidate, own_run
from store_samples import environment

from luma_cli.advise.costs import price
from luma_cli.advise.question import Question
from luma_cli.advise.recommend import Recommendation, recommend, recommendation
from luma_cli.advise.setting import judge, with_own
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import load_recipe
from luma_cli.cli.app import run as command
from luma_cli.report.recommendation import print_recommendation
from luma_cli.store.database import open_read, open_write
from luma_cli.store.records import EvaluationRecord, RunRecord
from luma_cli.store.runs import OwnRun, save_evaluation, scored_runs, start_run
from luma_cli.train.config import RunConfig
from luma_cli.units import parse_budget

SMALL, BASE = candidate("vit_s.dinov3", 40), candidate("vit_b.dinov3", 120)
MODEL = TableModel({SMALL.timm_name: (48.0, 0.5), BASE.timm_name: (54.0, 0.5), "arch_test_vit": (30.0, 2.0)})


def own(miou: float = 55.0, of: Any = BASE, number: int = 1, **fields: Any) -> OwnRun:
    """A finished run of the candidate's weights with the recipe and head as they are by default."""
    return own_run(of, miou, **{"run_id": f"run-{number}", **fields})


def ask(*runs: OwnRun, budgets: tuple[str, ...] = ("200gflops",), speed: Any = None, **asked: Any) -> Recommendation:
    question = Question("ade20k", tuple(map(parse_budget, budgets)), **asked)
    judged = judge(runs, question)
    pool = price(
        question.eligible(with_own([SMALL, BASE], judged)), question.kinds, speed, question.head, num_classes=150
    )
    return recommendation(question, pool, MODEL, own=judged, speed=speed)


def why_not(answer: Recommendation) -> list[tuple[str, ...]]:
    return [row.why_not for row in answer.measured_here]


class TestComparable:
    def test_it_stands_beside_the_answer(self) -> None:
        answer = ask(own(55.0), own(50.0, SMALL, 2))
        assert why_not(answer) == [(), ()]
        assert [row.run.miou_percent for row in answer.measured_here] == [55.0, 50.0]

    def test_its_model_is_a_candidate_without_a_card_too(self) -> None:
        tiny = candidate("test_vit.supervised_in1k", 1, 128, timm_name="arch_test_vit")
        answer = ask(own(55.0), own(30.0, tiny, 2))
        assert answer.num_within_budget == 3
        assert why_not(answer) == [(), ()]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data": "ade20k#1a2b3c4d", "dataset": "ade20k#1a2b3c4d"}, "data other than the official ade20k"),
        ({"data": "ade20k#1a2b3c4d", "dataset": "ade20k#99999999"}, "data other than the official ade20k"),
        ({"dataset": "ade20k#1a2b3c4d"}, "data other than the official ade20k"),
        ({"dataset": "boats#1a2b3c4d"}, "trained on boats#1a2b3c4d"),
        ({"recipe": "smoke"}, "recipe smoke"),
        ({"recipe": "ade20k+"}, "recipe ade20k changed"),
        ({"usual_recipe": False}, "recipe ade20k of another version"),
        ({"weights": "random"}, "weights random"),
        ({"status": "stopped"}, "stopped early"),
        ({"status": "diverged"}, "diverged"),
        ({"split": "train"}, "split train"),
        ({"head": HeadConfig(name="eomt"), "recipe": "eomt-ade20k-dinov3"}, "head eomt"),
        ({"head": HeadConfig(l2=3)}, "head luma with other options"),
        ({"single_scale": False}, "test-time augmentation"),
        ({"absent": "zero"}, "absent classes count zero"),
        ({"num_skipped": 3}, "3 images skipped"),
    ],
)
def test_a_run_that_differs_is_shown_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    answer = ask(own(99.0, **fields), own(98.0, SMALL, 2, **fields))
    assert why_not(answer) == [(reason,), (reason,)]


class TestQuestion:
    def test_a_size_that_was_not_asked_for(self) -> None:
        answer = ask(own(of=candidate("vit_b.dinov3", 120, 384)), resolutions=(512,))
        assert why_not(answer) == [("384 px was not asked for",)]

    def test_over_the_budget(self) -> None:
        answer = ask(own(), budgets=("100gflops",))
        assert why_not(answer) == [("120 GFLOPs exact does not surely meet 100gflops",)]

    def test_a_cost_that_is_not_known(self) -> None:
        speed = TableSpeed({SMALL.architecture: {"ms": 10.0}})
        assert why_not(ask(own(), budgets=("20ms",), speed=speed)) == [("its latency is not known",)]

    def test_a_family_that_was_not_asked_for(self) -> None:
        tiny = candidate("test_vit", 1, 128)
        answer = ask(own(of=tiny), families=frozenset({"isotropic"}))
        assert why_not(answer) == [("none of family isotropic was asked for",)]

    def test_another_head_makes_its_runs_comparable(self) -> None:
        eomt = {"head": HeadConfig(name="eomt"), "recipe": "eomt-ade20k-dinov3"}
        assert why_not(ask(own(55.0, **eomt), own(50.0, SMALL, 2, **eomt), head="eomt")) == [(), ()]

    def test_official_runs_on_another_dataset_say_nothing(self) -> None:
        assert ask(own(data="cityscapes", dataset="cityscapes")).measured_here == ()

    def test_runs_on_data_of_the_users_own_are_of_another_question(self) -> None:
        answer = ask(own(90.0, data="boats#12345678", dataset="boats#12345678"), own(20.0, number=2))
        assert [row.run.run_id for row in answer.measured_here] == ["run-2"]


def keep(
    database: Path, run_id: str, scores: dict[int, float | None], *, data: str = "ade20k#1a2b3c4d", **fields: Any
) -> None:
    """A run of test_vit and its validations by step, as training keeps them."""
    config = RunConfig("test_vit", 128, HeadConfig(), "ade20k", load_recipe("smoke"), weights="random")
    values: dict[str, Any] = {
        "run_id": run_id,
        "folder": "",
        "config": config.to_json(),
        "environment": environment(),
        "backbone": "test_vit",
        "timm_name": "test_vit.r160_in1k",
        "pretraining": "",
        "weights": "random",
        "resolution": 128,
        "head": "luma",
        "dataset": data,
        "recipe": "smoke",
        "seed": 0,
        "num_steps": 400,
        "batch": 16,
        "status": "finished",
        "step": 400,
        "started_at": "2026-11-21T15:00:00+00:00",
        "facts": {"params": 600_000},
    }
    with closing(open_write(database)) as db:
        start_run(db, RunRecord(**{**values, **fields}))
        for step, miou in scores.items():
            save_evaluation(db, evaluation(run_id, step, miou, data))


def evaluation(run_id: str, step: int, miou: float | None, data: str) -> EvaluationRecord:
    protocol = {"window": 128, "scales": [1.0], "flip": False, "absent": "skip", "dtype": "float32"}
    return EvaluationRecord(
        run_id=run_id,
        checkpoint_sha256="",
        step=step,
        data=data,
        split="val",
        resolution=128,
        protocol=protocol,
        num_images=10,
        num_skipped=0,
        num_windows=20,
        num_classes=150,
        num_present=9,
        miou_percent=miou,
        macc_percent=None,
        aacc_percent=None,
        boundary_miou_percent=None,
        windows_per_image=2.0,
        macs_per_image=1.5e9,
        seconds=1.0,
        evaluated_at=f"2026-11-21T15:00:{step % 60:02}+00:00",
    )


@pytest.mark.usefixtures("fitted")
class TestStore:
    def test_a_run_counts_what_its_last_step_scored(self, tmp_path: Path) -> None:
        keep(tmp_path / "a.db", "run-1", {100: 80.0, 400: 76.3, 200: 70.0})
        with closing(open_read(tmp_path / "a.db")) as connection:  # type: ignore[type-var]
            (found,) = scored_runs(connection)
        assert (found.miou_percent, found.step) == (76.3, 400)
        assert (found.macs, found.params) == (750_000_000, 600_000)
        assert found.usual_recipe
        assert found.single_scale

    def test_an_evaluation_with_boundaries_is_no_second_score(self, tmp_path: Path) -> None:
        keep(tmp_path / "a.db", "run-1", {400: 76.3})
        again = evaluation("run-1", 400, 76.3, "ade20k#1a2b3c4d")
        protocol = {**again.protocol, "boundary_ratio": 0.02}
        with closing(open_write(tmp_path / "a.db")) as db:
            save_evaluation(db, replace(again, protocol=protocol, evaluated_at="2026-11-21T16:00:00+00:00"))
        assert len(recommend("200gflops", database=tmp_path / "a.db").measured_here) == 1

    def test_without_a_score_there_is_no_row(self, tmp_path: Path) -> None:
        keep(tmp_path / "a.db", "run-1", {400: None})
        keep(tmp_path / "a.db", "run-2", {})
        assert recommend("200gflops", database=tmp_path / "a.db").measured_here == ()

    @pytest.mark.parametrize(("changed", "usual"), [({}, True), ({"lr": 0.5}, False), ({"source": "mine"}, True)])
    def test_the_shipped_recipe_is_known_by_its_settings(
        self, changed: dict[str, Any], usual: bool, tmp_path: Path
    ) -> None:
        config = RunConfig("test_vit", 128, HeadConfig(), "ade20k", load_recipe("ade20k")).to_json()
        config["recipe"] = json.loads(json.dumps({**asdict(load_recipe("ade20k")), **changed}))
        keep(tmp_path / "a.db", "run-1", {400: 70.0}, config=config, recipe="ade20k")
        with closing(open_read(tmp_path / "a.db")) as connection:  # type: ignore[type-var]
            assert [each.usual_recipe for each in scored_runs(connection)] == [usual]

    def test_a_damaged_store_is_a_note_unless_it_was_named_or_a_budget_needs_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a.db").write_bytes(b"not a database" * 100)
        monkeypatch.setenv("LUMA_DB", str(tmp_path / "a.db"))
        answer = recommend("200gflops")
        assert answer.rows
        assert answer.notes[-1].startswith("own runs and imported results were not read: ")
        assert command(["recommend", "--budget", "20ms", "--db", str(tmp_path / "a.db")]) == 1

    def test_json_and_text_of_a_backbone_without_card(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        keep(tmp_path / "a.db", "20261121-153012-test_vit-ade20k-3fa2", {400: 76.3})
        given = ["recommend", "--budget", "200gflops", "--db", str(tmp_path / "a.db")]
        assert command([*given, "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)["measured_here"]
        assert (row["run_id"], row["provenance"]) == ("20261121-153012-test_vit-ade20k-3fa2", "measured here")
        assert (row["miou_percent"], row["evaluated_on"], row["gmacs"]) == (76.3, "ade20k#1a2b3c4d", 0.75)
        assert row["ranked"] is False
        assert row["why_not_ranked"] == ["data other than the official ade20k", "recipe smoke", "weights random"]
        assert command([*given, "--why"]) == 0
        assert "Your own runs:" in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_part_on_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen = Terminal()
    drawn = own(76.3, candidate("test_vit", 0.75, 128), data="ade20k#1a2b3c4d", dataset="ade20k#1a2b3c4d")
    print_recommendation(ask(drawn, own(number=2)), file=screen, why=True)
    text = screen.getvalue()
    part = text[text.index("Your own runs:") :].split("\n\n")[0]
    assert part == (
        "Your own runs:\n"
        "  - vit_b.dinov3 at 512 px: 55.0 mIoU on ade20k val, 120.0 GFLOPs, run run-2;\n"
        "    evidence for this answer\n"
        "  - test_vit at 128 px: 76.3 mIoU on ade20k#1a2b3c4d val, 0.75 GFLOPs, run\n"
        "    run-1; not used: data other than the official ade20k"
    )


def test_runs_within_budget_come_before_better_ones_beyond_it() -> None:
    large = candidate("vit_l.dinov3", 400)
    answer = ask(own(60.0, large), own(50.0, SMALL, 2))
    assert [row.run.run_id for row in answer.measured_here] == ["run-2", "run-1"]


def test_many_runs_are_cut_short_in_text_alone() -> None:
    answer = ask(*(own(number=number, recipe="smoke") for number in range(12)))
    screen = io.StringIO()
    print_recommendation(answer, file=screen, why=True)
    assert "and 4 more; --json has them all" in screen.getvalue()
    assert len(answer.to_json()["measured_here"]) == 12
