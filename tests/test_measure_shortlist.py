"""Measuring the shortlist: what is measured, by whom it is agreed to, and that the answer changes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from advise_world import TableModel, TableSpeed, candidate

from luma_cli.advise.costs import price
from luma_cli.advise.question import Question
from luma_cli.advise.recommend import Recommendation, recommendation, shortlist
from luma_cli.cli import advise as measure_shortlist
from luma_cli.cli.advise import Consultation, here
from luma_cli.errors import NothingMeasured, UsageError
from luma_cli.units import parse_budget

CARDS = [candidate(f"m{number}_x", 10 * number) for number in range(1, 8)]
TWIN = candidate("m7_y", 70, architecture=CARDS[6].architecture, timm_name="arch_m7.y")
MODEL = TableModel({card.timm_name: (40.0 + number, 2.0) for number, card in enumerate([*CARDS, TWIN])})


def predicted(latency_ms: float) -> tuple[float, float, float]:
    return latency_ms, 0.7 * latency_ms, 1.4 * latency_ms


class Machine:
    """A device of which nothing is known until something was profiled; then all is predicted, what was, measured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:
        self.known, self.measured = known, dict[tuple[str, int], float]()
        monkeypatch.setattr("luma_cli.measure.sweep.profile", self.profile)

    def profile(self, names: Sequence[str], resolution: int, **settings: Any) -> None:
        assert settings["head"].num_classes == 150
        self.known = True
        self.measured |= {(name, resolution): 1.0 for name in names}

    def speed(self) -> TableSpeed:
        table: dict[str, Any] = {}
        for number, card in enumerate(CARDS, 1):
            is_measured = (card.name, card.resolution) in self.measured
            table[card.architecture] = {"ms": 4.0 * number if is_measured else predicted(4.0 * number)}
        return TableSpeed(table if self.known else {})

    def ask(self, top: int = 3, with_reasons: bool = False) -> Recommendation:
        question = Question("ade20k", (parse_budget("25ms"),))
        pool = price([*CARDS, TWIN], question.kinds, self.speed(), "luma", 150)
        return recommendation(question, pool, MODEL, speed=self.speed(), top=top, with_reasons=with_reasons)

    def session(self, device: str | None = None) -> Consultation:
        return Consultation(self.ask, "ade20k", "luma", device, None, 5)


def terminal(monkeypatch: pytest.MonkeyPatch, answer: bool) -> list[str]:
    """A terminal on which every question is answered so; the questions."""
    asked: list[str] = []
    monkeypatch.setattr(measure_shortlist, "_is_terminal", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question, **_: asked.append(question) or answer)
    return asked


def test_the_shortlist_is_of_segmenters_that_are_not_measured_best_first(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, known=True)
    machine.measured[CARDS[4].name, 512] = 1.0
    found = shortlist(machine.ask(top=20))
    assert [each.name for each in found] == ["m4_x", "m3_x", "m2_x", "m1_x", "m6_x"]


def test_measured_rows_replace_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, known=True)
    before = machine.ask()
    assert {row.candidate.name for row in before.rows} <= {"m1_x", "m2_x", "m3_x", "m4_x"}  # 16 ms, at most 22.4
    machine.session().measure()
    after = machine.ask()
    assert "m6_x" in {row.candidate.name for row in after.rows}
    assert any("24 ms measured" in row.why for row in after.rows)


def test_where_nothing_is_known_one_is_measured_before_the_shortlist(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, known=False)
    with pytest.raises(NothingMeasured, match="25ms depends on the device: .*: luma profile m1_x --res 512"):
        machine.ask()
    machine.session().measure()
    assert ("m1_x", 512) in machine.measured
    assert len(machine.measured) == 6


class TestAsking:
    def test_never_without_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
        machine = Machine(monkeypatch, known=False)
        with pytest.raises(NothingMeasured):
            machine.session().first(3, with_reasons=False, may_ask=True)
        assert not Machine(monkeypatch, known=True).session().offers()
        assert machine.measured == {}

    def test_agreed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = terminal(monkeypatch, answer=True)
        machine = Machine(monkeypatch, known=False)
        assert machine.session().first(3, with_reasons=False, may_ask=True).rows
        assert asked[0].endswith("measure m1_x here now?")

    def test_declined(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = terminal(monkeypatch, answer=False)
        with pytest.raises(NothingMeasured):
            Machine(monkeypatch, known=False).session().first(3, with_reasons=False, may_ask=True)
        assert not Machine(monkeypatch, known=True).session().offers()
        assert asked[1].startswith("measure m3_x (supervised_in1k) at 512 px, m4_x ")

    def test_not_for_another_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = terminal(monkeypatch, answer=True)
        assert not Machine(monkeypatch, known=True).session("RTX 4090").offers()
        with pytest.raises(UsageError, match="--measure measures this machine"):
            here("RTX 4090")
        assert asked == []
        assert (here(None), here("cuda:1")) == ("auto", "cuda:1")


def test_what_is_counted_alone_is_never_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    question = Question("ade20k", (parse_budget("50gflops"),))
    pool = price(CARDS, question.kinds, None, "luma", 150)
    assert shortlist(recommendation(question, pool, MODEL, top=9)) == []


def test_the_database_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(monkeypatch, known=True)
    seen: list[Any] = []
    monkeypatch.setattr("luma_cli.measure.sweep.profile", lambda *_, database, **__: seen.append(database))
    replace(machine.session(), database=tmp_path / "own.db").measure()
    assert seen == [tmp_path / "own.db"]
