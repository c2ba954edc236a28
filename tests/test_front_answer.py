"""`luma front` and `luma next` from the shipped tables, and as commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from advise_world import TableModel, conditions, measured, own_run

from luma_cli.advise import candidates as shipped
from luma_cli.advise import setting
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.front import front_of
from luma_cli.advise.next import next_runs
from luma_cli.advise.question import Question
from luma_cli.cli.app import run
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.evidence.evidence import Evidence

QUESTION = Question("ade20k", resolutions=(512,), families=frozenset({"isotropic"}))


def vit(name: str) -> Candidate:
    return next(each for each in shipped.load("ade20k", [512]) if each.name == name)


def fit(evidence: Sequence[Evidence]) -> TableModel:
    """A model that knows four ViTs, and how many rows it was given."""
    known = {"vit_s.dinov3": 49.0, "vit_b.dinov3": 54.0, "vit_l.dinov3": 57.0, "vit_b.dinov2": 53.0}
    table = {vit(name).timm_name: (miou, 0.5) for name, miou in known.items()}
    return TableModel(table, scale_note=f"from {len(evidence)} rows")


def test_the_front_of_what_ships() -> None:
    found = front_of(QUESTION, fit=fit)
    assert [row.candidate.name for row in found.rows] == ["vit_s.dinov3", "vit_b.dinov3", "vit_l.dinov3"]
    assert all(row.priced.costs["macs"].origin == "exact" for row in found.rows)
    assert found.to_json() == front_of(QUESTION, fit=fit).to_json()


def test_own_alone_needs_a_comparable_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoAnswer, match="no comparable run of your own on ade20k; run: luma next"):
        front_of(QUESTION, only_own=True, fit=fit)
    mine = [own_run(vit("vit_b.dinov3"), 52.5), own_run(vit("vit_l.dinov3"), 55.0, recipe="ade20k+")]
    monkeypatch.setattr(setting, "known", lambda database: ([], mine, ""))
    found = front_of(QUESTION, only_own=True, fit=fit)
    assert [row.candidate.name for row in found.rows] == ["vit_b.dinov3"]
    assert [each.below for each in found.own] == [pytest.approx(1.5)]
    assert "1 own run is not comparable: recipe ade20k changed" in found.notes


def test_a_front_over_time_needs_a_device() -> None:
    with pytest.raises(NoAnswer, match="latency is not known for any"):
        front_of(QUESTION, "latency", fit=fit)


def test_a_front_over_time_mixes_no_compile_modes_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager rows answer; the compiled one, far faster, is left out and named; what was not measured is predicted."""
    eager = conditions(device="cuda", device_name="New GPU", dtype="bfloat16")
    compiled = replace(eager, compile="max-autotune")
    rows = [
        measured(vit("vit_s.dinov3").timm_name, 30.0, conditions=eager, macs=vit("vit_s.dinov3").macs),
        measured(vit("vit_b.dinov3").timm_name, 90.0, conditions=eager, macs=vit("vit_b.dinov3").macs),
        measured(vit("vit_l.dinov3").timm_name, 5.0, conditions=compiled),
    ]
    monkeypatch.setattr("luma_cli.advise.costs.measured_rows", lambda database, device: rows)
    found = front_of(QUESTION, "latency", fit=fit)
    costs = {row.candidate.name: row.priced.costs["ms"] for row in found.rows}
    assert (costs["vit_s.dinov3"].value, costs["vit_s.dinov3"].origin) == (30.0, "measured")
    assert costs["vit_l.dinov3"].origin == "predicted"
    assert costs["vit_l.dinov3"].value > 90
    assert "1 measured row with another compile: left out" in found.notes


def test_filters_that_name_nothing() -> None:
    with pytest.raises(UsageError, match="--license 'gpl' is not known"):
        front_of(Question("ade20k", licences=frozenset({"gpl"})), fit=fit)
    with pytest.raises(NoAnswer, match="leave out a filter"):
        front_of(Question("ade20k", families=frozenset({"moe"}), pretrainings=frozenset({"sam2"})), fit=fit)


def test_next_of_what_ships_counts_training_and_says_why() -> None:
    found = next_runs(QUESTION, top=2, fit=fit)
    assert len(found.batch) == 2
    assert {run.cost.unit for run in found.batch} == {"PFLOP"}
    assert any("GPU-hours are not known on this device" in note for note in found.notes)


def test_commands_print_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[tuple[Question, str, bool]] = []

    def answered(question: Question, axis: str, *, only_own: bool, database: object) -> object:
        asked.append((question, axis, only_own))
        return front_of(QUESTION, fit=fit)

    monkeypatch.setattr("luma_cli.advise.front.front_of", answered)
    words = ["front", "--x", "throughput", "--res", "512", "640", "--license", "mit", "--own-only", "--json"]
    assert run(words) == 0
    ((question, axis, only_own),) = asked
    assert (question.resolutions, question.licences, axis, only_own) == (
        (512, 640),
        frozenset({"mit"}),
        "throughput",
        True,
    )
    assert len(json.loads(capsys.readouterr().out)["front"]) == 3


def test_next_as_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def answered(question: Question, *, hours: float | None, top: int, explore: bool, database: object) -> object:
        assert (hours, top, question.budgets[0].limit) == (24.0, 2, 100e9)
        return next_runs(QUESTION, top=2, fit=fit)

    monkeypatch.setattr("luma_cli.advise.next.next_runs", answered)
    words = ["next", "--budget-hours", "24", "--budget", "200gflops", "--budget", "100gflops", "--top", "2"]
    assert run(words) == 0
    assert "luma train " in capsys.readouterr().out
    assert run(["next", "--budget", "200parsecs"]) == 2
