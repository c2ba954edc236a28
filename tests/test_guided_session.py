"""Guided mode from question to command, with replies from a list instead of a terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from luma_cli.cli.app import run
from luma_cli.cli.guided import session
from luma_cli.cli.guided.place import DeviceHere, Place
from luma_cli.cli.guided.question import Move, Question, Reply

PLACE = Place((("ade20k", 150), ("cityscapes", 19)), (DeviceHere("Test CPU", "CPU here", "cpu"),))
TO_THE_ANSWER = ("ade20k", "none", "compute", "200", "nothing", "any")


class Scripted:
    """Replies in order; every reply must be one that the question allows."""

    def __init__(self, *replies: Reply):
        self.replies = list(replies)
        self.asked: list[str] = []

    def __call__(self, question: Question) -> Reply:
        reply = self.replies.pop(0)
        self.asked.append(question.text)
        if isinstance(reply, Move):
            assert reply in question.moves()
        elif question.choices:
            assert reply in [choice.value for choice in question.choices], question
        else:
            assert question.problem(reply) == ""
        return reply


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that would have been run."""
    ran: list[list[str]] = []

    def keep(command: Sequence[str]) -> int:
        ran.append(list(command)[4:])
        return 0

    monkeypatch.setattr("luma_cli.train.launch.handing_on", keep)
    return ran


def converse(*replies: Reply, place: Place = PLACE) -> list[str]:
    ask = Scripted(*replies)
    session.converse(ask, place)
    assert ask.replies == []
    return ask.asked


def test_the_command_that_is_shown_gives_the_same_answer(capsys: pytest.CaptureFixture[str]) -> None:
    converse(*TO_THE_ANSWER, Move.quit)
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("  luma "))
    assert line == "  luma recommend --dataset ade20k --budget 200gflops"
    assert run(shlex.split(line)[1:]) == 0
    same = capsys.readouterr().out
    assert said.startswith(same)
    assert "mIoU" in same


def test_limits_that_exclude_everything_are_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    asked = converse(
        "ade20k", "none", "compute", "0.001", "nothing", "any", "params", "100", "nothing", "any", Move.quit
    )
    said = capsys.readouterr().out
    assert "No answer: nothing meets 0.001gflops" in said
    assert "--budget 100Mparams" in said
    assert asked[6] == asked[2] == "What limits you most?"
    assert all(len(line) < 80 for line in said.splitlines() if "\t" not in line and "#" not in line)


def test_back_from_the_answer_asks_the_last_question_again() -> None:
    asked = converse(*TO_THE_ANSWER, Move.back, Move.back, Move.back, "300", "nothing", "any", Move.quit)
    assert asked[6:10] == ["What next?", asked[5], asked[4], asked[3]]


def test_every_question_can_be_left(commands: list[list[str]]) -> None:
    whole = (*TO_THE_ANSWER, "train", "0", "no", "save")
    for count in range(len(whole) + 1):
        converse(*whole[:count], Move.quit)
    assert all("--dry-run" in command for command in commands)


def test_the_next_steps_are_commands_of_luma(
    commands: list[list[str]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    converse(
        *TO_THE_ANSWER, "why", "1", "profile", "train", "0", "yes", "train", "0", "no", "train", Move.back, Move.quit
    )
    said = capsys.readouterr().out
    for command in commands:
        assert f"$ {shlex.join(['luma', *command])}" in said
    kinds = [command[0] for command in commands]
    assert kinds[0] == "show"
    assert kinds[-3:] == ["train", "train", "train"]
    assert [command[-1] == "--dry-run" for command in commands[-3:]] == [True, False, True]
    profiles = [command for command in commands if command[0] == "profile"]
    assert sum(len(command) - 5 for command in profiles) == 3
    assert all(command[-2:] == ["--device", "cpu"] for command in profiles)


def test_no_training_starts_when_its_rehearsal_fails(
    commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luma_cli.train.launch.handing_on", lambda command: commands.append(list(command)) or 1)
    assert "Start" not in "".join(converse(*TO_THE_ANSWER, "train", "0", Move.quit))
    assert len(commands) == 1


def test_a_stopped_command_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("luma_cli.train.launch.handing_on", lambda command: 130)
    with pytest.raises(KeyboardInterrupt):
        converse(*TO_THE_ANSWER, "profile")


def test_what_is_saved_is_the_json_and_nothing_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "answer.json"
    converse(*TO_THE_ANSWER, "save", str(file), Move.quit)
    capsys.readouterr()
    run(["recommend", "--budget", "200gflops", "--json"])
    assert json.loads(file.read_text()) == json.loads(capsys.readouterr().out)
    from luma_cli.cli.guided.next_step import file_name

    assert "exists already" in file_name("ade20k").problem(str(file))
    assert "missing" in file_name("ade20k").problem("  ")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    converse(*TO_THE_ANSWER, "save", str(tmp_path / "file" / "answer.json"), Move.quit)
    assert "not saved" in capsys.readouterr().out


def test_profiling_is_not_offered_for_a_device_that_is_elsewhere() -> None:
    place = Place(PLACE.datasets, (DeviceHere("NVIDIA A100", "measured before"), *PLACE.devices))
    ask = Scripted("ade20k", "NVIDIA A100", "compute", "200", "nothing", "any", "profile")
    with pytest.raises(AssertionError, match="What next"):
        session.converse(ask, place)
