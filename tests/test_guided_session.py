"""Guided mode from question to command, with replies from a list instead of a terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from advise_world import TableModel

from luma_cli.advise.recommend import Aside, Recommendation, recommend
from luma_cli.cli.app import run
from luma_cli.cli.guided import session
from luma_cli.cli.guided import session as running
from luma_cli.cli.guided.dialogue import Answers, DeviceHere, GuidedQuestion, Move, Reply
from luma_cli.cli.guided.session import file_name
from luma_cli.errors import NoAnswer, NothingMeasured

DEVICES = (DeviceHere("Test CPU", "CPU here", "cpu"),)
TO_THE_ANSWER = ("ade20k", "none", "compute", "200", "nothing", "any")
KNOWN = {"vit_base_patch16_224.augreg2_in21k_ft_in1k": (50.0, 1.0), "convnext_base.fb_in22k_ft_in1k": (51.0, 1.0)}
EARLIER_MEASURED = NothingMeasured("nothing is known of Test CPU", "resnet50", 224)


class Scripted:
    """Replies in order; every reply must be one that the question allows."""

    def __init__(self, *replies: Reply):
        self.replies = list(replies)
        self.asked: list[str] = []

    def __call__(self, question: GuidedQuestion) -> Reply:
        reply = self.replies.pop(0)
        self.asked.append(question.text)
        if isinstance(reply, Move):
            assert reply in question.moves()
        elif question.choices:
            assert reply in [value for value, _ in question.choices], question
        else:
            assert question.problem(reply) == ""
        return reply


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Recommendation:
    """An answer from a made-up model of accuracy."""
    missing = tmp_path_factory.mktemp("none") / "luma.db"
    return recommend("200gflops", database=missing, fit=lambda evidence: TableModel(KNOWN))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, found: Recommendation) -> list[Answers]:
    """Everything is answered with the made-up answer; what was asked."""
    asked: list[Answers] = []

    def answer(answers: Answers) -> Recommendation:
        asked.append(answers)
        return found

    monkeypatch.setattr(session, "recommendation", answer)
    return asked


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been run."""
    ran: list[list[str]] = []

    def keep(command: Sequence[str]) -> int:
        ran.append(list(command)[4:])
        return 0

    monkeypatch.setattr("luma_cli.train.processes.handing_on", keep)
    return ran


def converse(*replies: Reply, devices: tuple[DeviceHere, ...] = DEVICES) -> list[str]:
    ask = Scripted(*replies)
    session.converse(ask, devices)
    assert ask.replies == []
    return ask.asked


def fail(monkeypatch: pytest.MonkeyPatch, *outcomes: Exception | Recommendation) -> None:
    """The answers, one after the other."""
    left = list(outcomes)

    def answer(answers: Answers) -> Recommendation:
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(session, "recommendation", answer)


def test_the_commands_that_are_shown_ask_for_the_same(
    found: Recommendation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What reaches the advisor from the questions, and from each printed line when it is typed."""
    asked: list[tuple[Any, ...]] = []

    def answer(question: object, **options: object) -> Recommendation:
        asked.append((question, options.get("database")))
        return found

    def front(question: object, axis: str, **options: object) -> None:
        asked.append((question, axis))
        raise NoAnswer("no front")

    monkeypatch.setattr("luma_cli.advise.recommend.answer", answer)
    monkeypatch.setattr("luma_cli.advise.front.front_of", front)
    converse("cityscapes", "Test CPU", "time", "30fps", "params", "30", "nothing", "permissive", Move.quit)
    guided, asked[:] = list(asked), []
    lines = [
        line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith(("  luma front", "  luma rec"))
    ]
    filters = "--device 'Test CPU' --license apache-2.0 --license mit"
    assert lines == [
        f"luma front --x latency --dataset cityscapes {filters}",
        f"luma recommend --dataset cityscapes --budget 30fps --budget 30Mparams {filters}",
    ]
    for line in lines:
        run(shlex.split(line)[1:])
    (front_asked, axis), recommend_asked = asked
    assert [recommend_asked] == guided
    assert axis == "latency"
    assert (front_asked.device, front_asked.licences) == (recommend_asked[0].device, recommend_asked[0].licences)


def test_limits_that_exclude_everything_are_asked_again(
    made: list[Answers], found: Recommendation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = f"nothing meets 0.001gflops: the cheapest candidate is {'one of many words ' * 4}"
    empty = replace(found, rows=(), may_exceed=Aside(), binding=None, price=None)
    fail(monkeypatch, NoAnswer(long), empty, found)
    again = ("compute", "1", "nothing", "any")
    asked = converse("ade20k", "none", *again, *again, *again, Move.quit)
    said = capsys.readouterr().out
    assert said.startswith("\nNo answer: nothing meets 0.001gflops")
    assert all(len(line) < 80 for line in said.split("\n\n")[0].splitlines())
    assert "Nothing is recommended" in said
    assert asked[2] == asked[6] == asked[10] == "What limits you most?"


def test_what_must_be_measured_first_is_offered_and_then_it_is_answered(
    found: Recommendation, made: list[Answers], commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, EARLIER_MEASURED, found, EARLIER_MEASURED)
    to_time = ("ade20k", "Test CPU", "time", "20", "nothing", "any")
    converse(*to_time, "yes", Move.quit)
    assert commands == [["profile", "resnet50", "--res", "224", "--device", "cpu"]]
    asked = converse(*to_time, "no", Move.quit)
    assert asked[6:] == ["Measure resnet50 here now?", "What limits you most?"]


def test_what_must_be_measured_elsewhere_is_said(
    made: list[Answers], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(monkeypatch, EARLIER_MEASURED)
    devices = (DeviceHere("NVIDIA A100", "measured before"),)
    asked = converse("ade20k", "NVIDIA A100", "time", "20", "nothing", "any", Move.quit, devices=devices)
    assert asked[-1] == "What limits you most?"
    assert "nothing is known" in capsys.readouterr().out


def test_back_from_the_answer_asks_the_last_question_again(made: list[Answers]) -> None:
    asked = converse(*TO_THE_ANSWER, Move.back, Move.back, Move.back, "300", "nothing", "any", Move.quit)
    assert asked[6:10] == ["What next?", asked[5], asked[4], asked[3]]
    assert [answers.budgets for answers in made] == [("200gflops",), ("300gflops",)]


def test_every_question_can_be_left(made: list[Answers], commands: list[list[str]]) -> None:
    whole = (*TO_THE_ANSWER, "train", "0", "no", "save")
    for count in range(len(whole) + 1):
        converse(*whole[:count], Move.quit)
    assert all("--dry-run" in command for command in commands)


def test_the_next_steps_are_commands_of_luma(
    made: list[Answers], found: Recommendation, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    training = ("train", "0", "yes", "train", "0", "no", "train", Move.back)
    converse(*TO_THE_ANSWER, "why", "profile", *training, Move.quit)
    said = capsys.readouterr().out
    for command in commands:
        assert f"$ {shlex.join(['luma', *command])}" in said
    assert commands[0] == ["recommend", "--dataset", "ade20k", "--budget", "200gflops", "--why"]
    profiles = [command for command in commands if command[0] == "profile"]
    assert sorted(name for command in profiles for name in command[1:-4]) == sorted(
        row.candidate.name for row in found.rows[:3]
    )
    assert all(command[-2:] == ["--device", "cpu"] for command in profiles)
    trainings = [command for command in commands if command[0] == "train"]
    assert [command[-1] == "--dry-run" for command in trainings] == [True, False, True]
    assert len(made) == 2  # answered anew after the profile


def test_no_training_starts_when_its_rehearsal_fails(made: list[Answers], monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Sequence[str]] = []
    monkeypatch.setattr("luma_cli.train.processes.handing_on", lambda command: ran.append(command) or 1)
    assert "Start" not in "".join(converse(*TO_THE_ANSWER, "train", "0", Move.quit))
    assert len(ran) == 1


def test_a_stopped_command_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luma_cli.train.processes.handing_on", lambda command: 130)
    with pytest.raises(KeyboardInterrupt):
        running.run_luma(["profile", "vit_b"])


def test_what_is_saved_is_the_json_and_nothing_is_replaced(
    made: list[Answers], found: Recommendation, tmp_path: Path
) -> None:
    file = tmp_path / "answer.json"
    converse(*TO_THE_ANSWER, "save", str(file), Move.quit)
    assert json.loads(file.read_text()) == json.loads(json.dumps(found.to_json()))
    assert "exists already" in file_name("ade20k").problem(str(file))
    assert "missing" in file_name("ade20k").problem("  ")


def test_a_place_that_cannot_be_written_is_said(
    made: list[Answers], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    converse(*TO_THE_ANSWER, "save", str(tmp_path / "file" / "answer.json"), Move.quit)
    assert "not saved" in capsys.readouterr().out


def test_profiling_is_not_offered_for_a_device_that_is_elsewhere(made: list[Answers]) -> None:
    devices = (DeviceHere("NVIDIA A100", "measured before"), *DEVICES)
    ask = Scripted("ade20k", "NVIDIA A100", "compute", "200", "nothing", "any", "profile")
    with pytest.raises(AssertionError, match="What next"):
        session.converse(ask, devices)
