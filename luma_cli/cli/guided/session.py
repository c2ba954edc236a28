"""Guided mode from the first question to the last: asks, answers, shows the command, runs what is chosen next."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from luma_cli.cli.guided import next_step
from luma_cli.cli.guided.command_line import profile_arguments, recommend_arguments, spelled, train_arguments
from luma_cli.cli.guided.dialogue import Answers, Dialogue
from luma_cli.cli.guided.place import Place, find_place
from luma_cli.cli.guided.question import Move, Question, Reply
from luma_cli.errors import NoAnswer, UsageError

if TYPE_CHECKING:
    from luma_cli.advise.answer import Recommendation

Ask = Callable[[Question], Reply]
_INTERRUPTED = 130
_WELCOME = "luma: a backbone for your segmentation, in a few questions. Back: Esc. Quit: Ctrl-D."


def guide() -> int:
    """Ask on this terminal until the user quits; the exit code."""
    from luma_cli.cli.guided.prompt import ask

    print(_WELCOME)
    converse(ask, find_place())
    return 0


def converse(ask: Ask, place: Place) -> None:
    """Ask, answer and go on until `ask` replies quit."""
    dialogue = Dialogue(place)
    while True:
        question = dialogue.question()
        move = ask(question) if question else _answer(ask, dialogue)
        if move is Move.quit:
            return
        if isinstance(move, Dialogue):
            dialogue = move
        else:
            dialogue = dialogue.back() if isinstance(move, Move) else dialogue.replied(move)


def _answer(ask: Ask, dialogue: Dialogue) -> Dialogue | Move:
    """Print the answer and what follows; where to go on."""
    answers = dialogue.answers()
    try:
        found = recommendation(answers)
    except (NoAnswer, UsageError) as error:
        _say(f"No answer: {error}")
        return dialogue.before_limits()
    from luma_cli.report.recommendation import print_recommendation

    print_recommendation(found)
    print(f"\nThe same without questions:\n  {spelled(recommend_arguments(answers))}\n")
    return _next_steps(ask, found, answers, dialogue.place)


def recommendation(answers: Answers) -> Recommendation:
    """What `luma recommend` answers. Raises NoAnswer, UsageError, StoreError."""
    from luma_cli.advise.api import recommend

    return recommend(answers.budgets, dataset=answers.dataset, device=answers.device or None)


def _next_steps(ask: Ask, found: Recommendation, answers: Answers, place: Place) -> Move:
    """Offer the next step until the user goes back or quits."""
    steps = {"why": _why, "profile": _profile, "train": _train, "save": _save}
    while True:
        reply = ask(next_step.menu(found.rows, answers, place))
        if isinstance(reply, Move):
            return reply
        if steps[reply](ask, found, answers, place) is Move.quit:
            return Move.quit


def _why(ask: Ask, found: Recommendation, answers: Answers, place: Place) -> Reply:
    reply = ask(next_step.which(found.rows))
    if isinstance(reply, str):
        run_luma(["show", found.rows[int(reply)].candidate.name])
    return reply


def _profile(ask: Ask, found: Recommendation, answers: Answers, place: Place) -> Reply:
    top = [(row.candidate.name, row.candidate.resolution) for row in found.rows[: next_step.NUM_PROFILED]]
    for arguments in profile_arguments(top, next_step.local_device(answers, place)):
        run_luma(arguments)
    return ""


def _train(ask: Ask, found: Recommendation, answers: Answers, place: Place) -> Reply:
    reply = ask(next_step.which(found.rows))
    if isinstance(reply, Move):
        return reply
    chosen = found.rows[int(reply)].candidate
    arguments = train_arguments(chosen.name, chosen.resolution, answers.dataset)
    if run_luma([*arguments, "--dry-run"]) != 0:
        return ""
    reply = ask(next_step.start_training())
    if reply == "yes":
        run_luma(arguments)
    return reply


def _save(ask: Ask, found: Recommendation, answers: Answers, place: Place) -> Reply:
    from luma_cli.atomic import write_text

    reply = ask(next_step.file_name(answers.dataset))
    if isinstance(reply, str):
        path = Path(reply.strip()).expanduser()
        try:
            write_text(path, json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n")
            _say(f"saved to {path}, as the same command with --json prints it")
        except OSError as error:
            _say(f"not saved: {path}: {error.strerror}; choose another file")
    return reply


def _say(text: str) -> None:
    """A wrapped paragraph with empty lines around it."""
    print(f"\n{textwrap.fill(text, max(40, get_terminal_size().columns - 1), break_on_hyphens=False)}\n")


def run_luma(arguments: Sequence[str]) -> int:
    """Show and run a command of luma to its end; its exit code. Raises KeyboardInterrupt when it was stopped."""
    from luma_cli.train.launch import handing_on

    print(f"\n$ {spelled(arguments)}")
    code = handing_on([sys.executable, "-P", "-m", "luma_cli", *arguments])
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        print(f"(exit code {code})")
    return code
