"""Guided mode from the first question to the last: asks, answers, shows the command, goes on to what is chosen next."""

from __future__ import annotations

import textwrap
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from luma_cli.cli.guided import next_step
from luma_cli.cli.guided.command_line import front_arguments, profile_arguments, recommend_arguments, spelled
from luma_cli.cli.guided.dialogue import Answers, Dialogue
from luma_cli.cli.guided.following import Ask, follow
from luma_cli.cli.guided.place import Place, find_place
from luma_cli.cli.guided.question import Move
from luma_cli.cli.guided.running import run_luma
from luma_cli.errors import NoAnswer, NothingMeasured, UsageError

if TYPE_CHECKING:
    from luma_cli.advise.answer import Recommendation

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
        reply = ask(question) if question else _answered(ask, dialogue)
        if reply is Move.quit:
            return
        if isinstance(reply, str):
            dialogue = dialogue.replied(reply)
        else:
            dialogue = dialogue.back() if isinstance(reply, Move) else reply


def _answered(ask: Ask, dialogue: Dialogue) -> Dialogue | Move:
    """Print the answer and do what is chosen next; the dialogue to go on with, the same one to answer anew."""
    answers = dialogue.answers()
    try:
        found = recommendation(answers)
    except NothingMeasured as nothing:
        say(f"No answer: {nothing}")
        return _measured_first(ask, dialogue, nothing)
    except (NoAnswer, UsageError) as error:
        say(f"No answer: {error}")
        return dialogue.before_limits()
    print_front(answers)
    _print_answer(found)
    print(f"\nThe same without questions:\n  {spelled(front_arguments(answers))}")
    print(f"  {spelled(recommend_arguments(answers))}\n")
    can_go_on = found.rows or (next_step.to_profile(found) and next_step.local_device(answers, dialogue.place))
    if not can_go_on:
        say("Nothing is recommended under these limits; set others.")
        return dialogue.before_limits()
    return follow(ask, found, answers, dialogue.place) or dialogue


def recommendation(answers: Answers) -> Recommendation:
    """What `luma recommend` answers. Raises NoAnswer, UsageError, StoreError."""
    from luma_cli.advise.api import recommend

    device = answers.device or None
    return recommend(answers.budgets, dataset=answers.dataset, device=device, licences=answers.licences)


def print_front(answers: Answers) -> None:
    """What `luma front` prints, or why there is no front."""
    from luma_cli.advise.front_answer import front_of
    from luma_cli.advise.question import Question
    from luma_cli.report.front import print_front as show

    question = Question(answers.dataset, licences=frozenset(answers.licences), device=answers.device or None)
    try:
        show(front_of(question, answers.axis))
    except NoAnswer as error:
        say(f"No front: {error}")


def _print_answer(found: Recommendation) -> None:
    from luma_cli.report.recommendation import print_recommendation

    print_recommendation(found)


def _measured_first(ask: Ask, dialogue: Dialogue, nothing: NothingMeasured) -> Dialogue | Move:
    """Offer the measurement that an answer needs, where the device is here."""
    device = dialogue.place.local(dialogue.answers().device)
    reply = ask(next_step.measure_first(nothing.name)) if device else "no"
    if isinstance(reply, Move):
        return reply
    if reply == "yes":
        (arguments,) = profile_arguments([(nothing.name, nothing.resolution)], device)
        if run_luma(arguments) == 0:
            return dialogue
    return dialogue.before_limits()


def say(text: str) -> None:
    """A wrapped paragraph with empty lines around it."""
    print(f"\n{textwrap.fill(text, max(40, get_terminal_size().columns - 1), break_on_hyphens=False)}\n")
