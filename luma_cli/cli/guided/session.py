"""Guided mode from the first question to the last: asks, answers, shows the command, goes on to what is chosen next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.cli.guided.dialogue import Answers, Choice, Dialogue, Move, Place, Question, Reply, find_place
from luma_cli.errors import NoAnswer, NothingMeasured, UsageError

if TYPE_CHECKING:
    from luma_cli.advise.candidates import Candidate
    from luma_cli.advise.recommend import Recommendation


_WELCOME = "luma: a backbone for your segmentation, in a few questions. Back: Esc. Quit: Ctrl-D."
_INTERRUPTED = 130
NUM_PROFILED = 3

Ask = Callable[[Question], Reply]


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
    from luma_cli.report.recommendation import print_recommendation

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
    print_recommendation(found)
    filters = _filters(answers)
    front = ["front", "--x", answers.axis, "--dataset", answers.dataset, *filters]
    print(f"\nThe same without questions:\n  {spelled(front)}")
    print(f"  {spelled(recommend_arguments(answers))}\n")
    if not found.rows and not (_to_profile(found) and _local_device(answers, dialogue.place)):
        say("Nothing is recommended under these limits; set others.")
        return dialogue.before_limits()
    return _follow(ask, found, answers, dialogue.place) or dialogue


def recommendation(answers: Answers) -> Recommendation:
    """What `luma recommend` answers. Raises NoAnswer, UsageError, StoreError."""
    from luma_cli.advise.recommend import recommend

    device = answers.device or None
    return recommend(answers.budgets, dataset=answers.dataset, device=device, licences=answers.licences)


def print_front(answers: Answers) -> None:
    """What `luma front` prints, or why there is no front."""
    from luma_cli.advise.front import front_of
    from luma_cli.advise.question import Question as Asked
    from luma_cli.report.front import print_front as show

    asked = Asked(answers.dataset, licences=frozenset(answers.licences), device=answers.device or None)
    try:
        show(front_of(asked, answers.axis))
    except NoAnswer as error:
        say(f"No front: {error}")


def recommend_arguments(answers: Answers) -> list[str]:
    """`luma recommend` with the same answer."""
    budgets = [part for budget in answers.budgets for part in ("--budget", budget)]
    return ["recommend", "--dataset", answers.dataset, *budgets, *_filters(answers)]


def _filters(answers: Answers) -> list[str]:
    device = ["--device", answers.device] if answers.device else []
    return [*device, *(part for licence in answers.licences for part in ("--license", licence))]


def spelled(arguments: Sequence[str]) -> str:
    """The line to type.

    >>> spelled(["recommend", "--device", "NVIDIA H200"])
    "luma recommend --device 'NVIDIA H200'"
    """
    return shlex.join(["luma", *arguments])


def _measured_first(ask: Ask, dialogue: Dialogue, nothing: NothingMeasured) -> Dialogue | Move:
    """Offer the measurement that an answer needs, where the device is here."""
    device = dialogue.place.local(dialogue.answers().device)
    choices = (Choice("yes", "yes"), Choice("no", "no: change the limits"))
    reply = ask(Question(f"Measure {nothing.name} here now?", choices)) if device else "no"
    if isinstance(reply, Move):
        return reply
    command = ["profile", nothing.name, "--res", str(nothing.resolution), "--device", device]
    return dialogue if reply == "yes" and run_luma(command) == 0 else dialogue.before_limits()


def _follow(ask: Ask, found: Recommendation, answers: Answers, place: Place) -> Move | None:
    """Offer the next step until the user goes back or quits; None when something was measured: answer anew."""
    here, promising = _local_device(answers, place), _to_profile(found)
    choices = [Choice("why", "show why")] if found.rows else []
    if here and promising:
        choices.append(Choice("profile", f"profile the top {len(promising)} on this machine ({here})"))
    if found.rows:
        choices.append(Choice("train", "train one of them"))
    while True:
        reply = ask(Question("What next?", (*choices, Choice("save", "save the answer to a file"))))
        if isinstance(reply, Move):
            return reply
        if reply == "profile":
            _profile(promising, here)
            return None
        if reply == "why":
            run_luma([*recommend_arguments(answers), "--why"])
        elif (_train if reply == "train" else _save)(ask, found, answers) is Move.quit:
            return Move.quit


def _to_profile(found: Recommendation) -> list[Candidate]:
    """The top three of the answer; what may exceed a budget, where nothing surely meets it."""
    return [row.candidate for row in (found.rows or found.may_exceed.rows)[:NUM_PROFILED]]


def _local_device(answers: Answers, place: Place) -> str:
    """The device to profile on: the one that was asked about, or the first one here where none was; else empty."""
    if answers.device:
        return place.local(answers.device)
    return next((each.local for each in place.devices if each.local), "")


def _profile(chosen: Sequence[Candidate], device: str) -> None:
    """`luma profile`, one command for each resolution."""
    for size in dict.fromkeys(each.resolution for each in chosen):
        names = [each.name for each in chosen if each.resolution == size]
        run_luma(["profile", *names, "--res", str(size), "--device", device])


def _train(ask: Ask, found: Recommendation, answers: Answers) -> Reply:
    """Rehearse the training of one row, then start it if it is wanted. No training without a sound rehearsal."""
    candidates = [row.candidate for row in found.rows]
    labels = [f"{each.name} at {each.resolution} px" for each in candidates]
    reply = ask(Question("Which one?", tuple(Choice(str(index), label) for index, label in enumerate(labels))))
    if isinstance(reply, Move):
        return reply
    chosen = candidates[int(reply)]
    arguments = ["train", chosen.name, "--data", answers.dataset, "--res", str(chosen.resolution)]
    if run_luma([*arguments, "--dry-run"]) != 0:
        return ""
    reply = ask(Question("Start this training now?", (Choice("no", "no"), Choice("yes", "yes, start"))))
    if reply == "yes":
        run_luma(arguments)
    return reply


def _save(ask: Ask, found: Recommendation, answers: Answers) -> Reply:
    from luma_cli.files import write_text
    from luma_cli.report.table import json_text

    reply = ask(file_name(answers.dataset))
    if isinstance(reply, str):
        path = Path(reply.strip()).expanduser()
        try:
            write_text(path, json_text(found) + "\n")
            print(f"saved to {path}: what the same command prints with --json")
        except OSError as error:
            print(f"not saved: {path}: {error.strerror}; choose another file")
    return reply


def file_name(dataset: str) -> Question:
    """Where to save."""

    def problem(typed: str) -> str:
        if not typed.strip():
            return "a file name is missing; try luma.json"
        path = Path(typed.strip()).expanduser()
        return f"{path} exists already; choose another name" if path.exists() else ""

    return Question("Which file?", problem=problem, default=f"luma-{dataset}.json")


def run_luma(arguments: Sequence[str]) -> int:
    """Show and run a command; its exit code. It gets the signals that are meant for us, so that it can save.

    Raises KeyboardInterrupt when it was stopped by Ctrl-C.
    """
    from luma_cli.train.processes import handing_on

    print(f"\n$ {spelled(arguments)}")
    code = handing_on([sys.executable, "-P", "-m", "luma_cli", *arguments])
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        print(f"(exit code {code})")
    return code


def say(text: str) -> None:
    """A wrapped paragraph with empty lines around it."""
    from luma_cli.report.table import wrapped

    print(f"\n{wrapped(text)}\n")
