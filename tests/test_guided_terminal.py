"""When `luma` alone may ask: never without a terminal, never in a CI job, never without the library."""

from __future__ import annotations

import io
import sys

import pytest

from luma_cli.cli.app import run
from luma_cli.cli.guided import prompt as terminal


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


XTERM = {"TERM": "xterm-256color"}


@pytest.mark.parametrize("variables", [XTERM, {**XTERM, "CI": "false"}, {**XTERM, "CI": ""}])
def test_two_terminals_can_be_asked(variables: dict[str, str]) -> None:
    assert terminal.can_ask(Tty(), Tty(), variables)


@pytest.mark.parametrize(
    ("stdin", "stdout", "variables"),
    [
        (io.StringIO(), Tty(), XTERM),
        (Tty(), io.StringIO(), XTERM),
        (Tty(), Tty(), {}),
        (Tty(), Tty(), {"TERM": "dumb"}),
        (Tty(), Tty(), {**XTERM, "CI": "1"}),
        (Tty(), Tty(), {**XTERM, "CI": "true"}),
    ],
)
def test_all_else_is_not_asked(stdin: io.StringIO, stdout: io.StringIO, variables: dict[str, str]) -> None:
    assert not terminal.can_ask(stdin, stdout, variables)


def test_a_closed_stream_is_no_terminal() -> None:
    closed = io.StringIO()
    closed.close()
    assert not terminal.can_ask(closed, Tty(), XTERM)


def test_without_a_terminal_luma_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    said = capsys.readouterr()
    assert "recommend" in said.out
    assert said.err == ""


def test_without_the_library_one_line_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "can_ask", lambda: True)
    monkeypatch.setitem(sys.modules, "questionary", None)
    assert run([]) == 0
    said = capsys.readouterr()
    assert "recommend" in said.out
    assert said.err == f"luma: {terminal.MISSING}\n"
    assert "pip install questionary" in said.err
    assert "luma recommend --budget" in said.err
