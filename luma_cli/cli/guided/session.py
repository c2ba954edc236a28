"""Guided mode from the first question to the last: asks, answers, shows the command, runs what is chosen next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.cli.guided.dialogue import (
    Answers,
    DeviceHere,
    Dialogue,
    GuidedQuestion,
    Move,
    Reply,
    find_devices,
    local_name,
)
from luma_cli.cli.options import Filters
from luma_cli.errors import NoAnswer, NothingMeasured, UsageError

if TYPE_CHECKING:
    from luma_cli.advise.candidates import Candidate
    from luma_cli.advise.recommend import Recommendation


_WELCOME = "luma: a backbone for your segmentation, in a few questions. Back: Esc. Quit: Ctrl-D."
_INTERRUPTED = 130
NUM_PROFILED = 3

Ask = Callable[[GuidedQuestion], Reply]


def guide() -> int:
    """Ask on this terminal until the user quits; the exit code."""
    from luma_cli.cli.guided.prompt import ask

    print(_WELCOME)
    converse(ask, find_devices())
    return 0


def converse(ask: Ask, devices: tuple[DeviceHere, ...]) -> None:
    """Ask and answer until `ask` replies quit."""
    dialogue = Dialogue(devices)
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
    """Print the answer and do what is chosen next; the dialogue to continue with, unchanged to answer again."""
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
    print_recommendation(found)
    front = ["front", "--x", answers.axis, "--dataset", answers.dataset, *_options(answers)]
    print(f"\nThe same without questions:\n  {spelled(front)}")
    print(f"  {spelled(recommend_arguments(answers))}\n")
    # What may exceed a budget is worth a measurement where nothing surely meets it.
    promising = [row.candidate for row in (found.rows or found.may_exceed.rows)[:NUM_PROFILED]]
    local = [each.local for each in dialogue.devices if answers.device in ("", each.name)]
    here = next(filter(None, local), "")  # without a chosen device: the first one here
    if not found.rows and not (promising and here):
        say("Nothing is recommended under these limits; set others.")
        return dialogue.before_limits()
    return _follow(ask, found, answers, promising if here else [], here) or dialogue


def recommendation(answers: Answers) -> Recommendation:
    """The answer of `luma recommend`. Raises NoAnswer, UsageError, StoreError."""
    from luma_cli.advise.recommend import answer

    return answer(_filters(answers).question(answers.dataset, answers.device or None, answers.budgets))


def recommend_arguments(answers: Answers) -> list[str]:
    """The arguments of `luma recommend` for the same answer."""
    budgets = [part for budget in answers.budgets for part in ("--budget", budget)]
    return ["recommend", "--dataset", answers.dataset, *budgets, *_options(answers)]


def _filters(answers: Answers) -> Filters:
    return Filters(licence=list(answers.licences))


def _options(answers: Answers) -> list[str]:
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
    device = local_name(dialogue.answers().device, dialogue.devices)
    choices = (("yes", "yes"), ("no", "no: change the limits"))
    reply = ask(GuidedQuestion(f"Measure {nothing.name} here now?", choices)) if device else "no"
    if isinstance(reply, Move):
        return reply
    command = ["profile", nothing.name, "--res", str(nothing.resolution), "--device", device]
    return dialogue if reply == "yes" and run_luma(command) == 0 else dialogue.before_limits()


def _follow(
    ask: Ask, found: Recommendation, answers: Answers, promising: Sequence[Candidate], here: str
) -> Move | None:
    """Offer the next step until the user goes back or quits; None when something was measured: answer again."""
    choices = [("why", "show why")] if found.rows else []
    if promising:
        choices.append(("profile", f"profile the top {len(promising)} on this machine ({here})"))
    choices += [("train", "train one of them")] if found.rows else []
    while True:
        reply = ask(GuidedQuestion("What next?", (*choices, ("save", "save the answer to a file"))))
        if isinstance(reply, Move):
            return reply
        if reply == "profile":
            for size in dict.fromkeys(each.resolution for each in promising):
                names = [each.name for each in promising if each.resolution == size]
                run_luma(["profile", *names, "--res", str(size), "--device", here])
            return None
        if reply == "why":
            run_luma([*recommend_arguments(answers), "--why"])
        elif (_train if reply == "train" else _save)(ask, found, answers) is Move.quit:
            return Move.quit


def _train(ask: Ask, found: Recommendation, answers: Answers) -> Reply:
    """Rehearse the training of one row, then start it if the user agrees; a failed rehearsal ends it."""
    candidates = [row.candidate for row in found.rows]
    labels = tuple((str(index), f"{each.name} at {each.resolution} px") for index, each in enumerate(candidates))
    reply = ask(GuidedQuestion("Which one?", labels))
    if isinstance(reply, Move):
        return reply
    chosen = candidates[int(reply)]
    arguments = ["train", chosen.name, "--data", answers.dataset, "--res", str(chosen.resolution)]
    if run_luma([*arguments, "--dry-run"]) != 0:
        return ""
    reply = ask(GuidedQuestion("Start this training now?", (("no", "no"), ("yes", "yes, start"))))
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
            print(f"saved to {path}: the output of the same command with --json")
        except OSError as error:
            print(f"not saved: {path}: {error.strerror}; choose another file")
    return reply


def file_name(dataset: str) -> GuidedQuestion:
    """The question for the file to save to."""

    def problem(typed: str) -> str:
        if not typed.strip():
            return "a file name is missing; try luma.json"
        path = Path(typed.strip()).expanduser()
        return f"{path} exists already; choose another name" if path.exists() else ""

    return GuidedQuestion("Which file?", problem=problem, default=f"luma-{dataset}.json")


def run_luma(arguments: Sequence[str]) -> int:
    """Show and run a command; its exit code. It gets our signals, so that it can save.

    Raises KeyboardInterrupt when Ctrl-C stopped it.
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
    """Print a wrapped paragraph with empty lines around it."""
    from luma_cli.report.table import wrapped

    print(f"\n{wrapped(text)}\n")
