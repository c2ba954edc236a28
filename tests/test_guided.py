"""`luma` alone on a real pseudo-terminal of 80 columns, key by key."""

from __future__ import annotations

import os
import shlex
import sys
import termios
from pathlib import Path

import pexpect
import pytest

# Pseudo-terminals are made by forking; what is forked becomes another program at once.
pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
LUMA = [sys.executable, "-P", "-m", "luma_cli"]
ENTER, ESCAPE, CTRL_C, CTRL_D, CTRL_U, BACKSPACE, DOWN = "\r", "\x1b", "\x03", "\x04", "\x15", "\x7f", "\x1b[B"
_UNLIMITED = 60.0


class Terminal:
    """A pseudo-terminal with `luma` in it."""

    def __init__(self, *command: str, **variables: str):
        # Nobody answers here when the cursor's position is asked for.
        usual = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "CI": "", "CUDA_VISIBLE_DEVICES": ""}
        first, *rest = command or LUMA
        self._child = pexpect.spawn(
            first,
            rest,
            env={**os.environ, **usual, **variables},
            dimensions=(24, 80),
            timeout=_UNLIMITED,
            encoding="utf-8",
        )
        self._child.delaybeforesend = None
        self._said: list[str] = []

    def see(self, text: str) -> None:
        """Wait until the text appears."""
        self._child.expect_exact(text)
        self._said += [self._child.before or "", text]

    def reply(self, question: str, keys: str) -> None:
        """Wait for a question and press keys."""
        self.see(question)
        self._child.send(keys)

    def press(self, keys: str) -> None:
        self._child.send(keys)

    def end(self) -> int:
        """Wait until the program has ended; its exit code."""
        self._child.expect(pexpect.EOF)
        self._said.append(self._child.before or "")
        mode = termios.tcgetattr(self._child.child_fd)[3]
        self._child.close()
        assert mode & termios.ECHO, "the terminal echoes no more"
        assert mode & termios.ICANON, "the terminal is left raw"
        assert self.raw.rfind("\x1b[?25h") >= self.raw.rfind("\x1b[?25l"), "the cursor is left hidden"
        return int(self._child.exitstatus if self._child.exitstatus is not None else -self._child.signalstatus)

    @property
    def raw(self) -> str:
        return "".join(self._said)


def test_from_the_first_question_to_a_saved_answer(tmp_path: Path) -> None:
    screen = Terminal()
    screen.reply("Which dataset", "citx" + ENTER)  # matches nothing: Enter takes nothing
    screen.press(BACKSPACE + "y" + ENTER)
    screen.reply("On which device", DOWN + ENTER)
    screen.see("What limits you most")
    screen.reply("time of a crop", ESCAPE)  # on the CPU; without a device only counts can bind
    screen.reply("On which device", "none" + ENTER)
    screen.reply("What limits you most", "gflop" + ENTER)
    screen.reply("How much", "200 bananas" + ENTER)
    screen.reply("is not a limit on GFLOPs; try 200gflops", CTRL_U + "0.001" + ENTER)
    screen.reply("What else limits you", ENTER)
    screen.reply("Which licence", ENTER)
    screen.see("No answer: nothing meets 0.001gflops")
    screen.reply("What limits you most", "gflop" + ENTER)
    screen.reply("How much", "back" + ENTER)
    screen.reply("What limits you most", "gflop" + ENTER)
    screen.reply("How much", "200" + ENTER)
    screen.reply("What else limits you", ENTER)
    screen.reply("Which licence", ENTER)
    screen.see("luma recommend --dataset cityscapes --budget 200gflops\r\n")
    screen.reply("What next", "save" + ENTER)
    screen.reply("Which file", CTRL_U + str(tmp_path / "a.json") + ENTER)
    screen.see("saved to")
    screen.reply("What next", "why" + ENTER)
    screen.see("$ luma recommend --dataset cityscapes --budget 200gflops --why")
    screen.reply("What next", CTRL_D)
    assert screen.end() == 0
    assert (tmp_path / "a.json").read_text().startswith("{")


@pytest.mark.parametrize("keys", [[], [ENTER, ENTER, ENTER]], ids=["in a list", "in a text"])
def test_ctrl_c_stops_with_130(keys: list[str]) -> None:
    screen = Terminal()
    questions = ["Which dataset", "On which device", "What limits", "How much"]
    for question, key in zip(questions, [*keys, CTRL_C], strict=False):
        screen.reply(question, key)
    assert screen.end() == 130
    assert "luma: stopped by Ctrl-C" in screen.raw


def test_what_cannot_be_asked_gets_the_help() -> None:
    luma = shlex.join(LUMA)
    screen = Terminal("sh", "-c", f"{luma} | cat; {luma} < /dev/null; TERM=dumb {luma}")
    for _ in range(3):
        screen.see("Usage")
    assert screen.end() == 0
    assert "Which dataset" not in screen.raw
