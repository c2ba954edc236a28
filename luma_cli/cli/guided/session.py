"""Guided mode from the first question to the last: asks, answers, shows the command, goes on to what is chosen next."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from luma_cli.cli.guided.dialogue import Answers, Choice, Dialogue, Move, Place, Question, Reply, find_place
from luma_cli.errors import NoAnswer, NothingMeasured, UsageError

if TYPE_CHECKING:
    from luma_cli.advise.answer import Recommendation
    from luma_cli.advise.candidates import Candidate


def recommend_arguments(answers: Answers) -> list[str]:
    """`luma recommend` with the same answer."""
    budgets = [part for budget in answers.budgets for part in ("--budget", budget)]
    return ["recommend", "--dataset", answers.dataset, *budgets, *_filters(answers)]


def front_arguments(answers: Answers) -> list[str]:
    """`luma front` over what is limited first."""
    return ["front", "--x", answers.axis, "--dataset", answers.dataset, *_filters(answers)]


def _filters(answers: Answers) -> list[str]:
    device = ["--device", answers.device] if answers.device else []
    return [*device, *(part for licence in answers.licences for part in ("--license", licence))]


def profile_arguments(chosen: Sequence[tuple[str, int]], device: str) -> list[list[str]]:
    """`luma profile` of backbones at their resolutions: one command for each resolution."""
    by_size: dict[int, list[str]] = {}
    for name, resolution in chosen:
        by_size.setdefault(resolution, []).append(name)
    return [["profile", *names, "--res", str(size), "--device", device] for size, names in by_size.items()]


def train_arguments(name: str, resolution: int, dataset: str) -> list[str]:
    """`luma train` of one backbone."""
    return ["train", name, "--data", dataset, "--res", str(resolution)]


def spelled(arguments: Sequence[str]) -> str:
    """The line to type.

    >>> spelled(["recommend", "--device", "NVIDIA H200"])
    "luma recommend --device 'NVIDIA H200'"
    """
    return shlex.join(["luma", *arguments])


NUM_PROFILED = 3


def menu(found: Recommendation, answers: Answers, place: Place) -> Question:
    """What to do next with what was found, and on this machine."""
    here = local_device(answers, place)
    promising = to_profile(found)
    choices = [Choice("why", "show why")] if found.rows else []
    if here and promising:
        choices.append(Choice("profile", f"profile the top {len(promising)} on this machine ({here})"))
    if found.rows:
        choices.append(Choice("train", "train one of them"))
    return Question("What next?", (*choices, Choice("save", "save the answer to a file")))


def to_profile(found: Recommendation) -> list[Candidate]:
    """The top three of the answer; what may exceed a budget, where nothing surely meets it."""
    if not found.rows:
        return [row.candidate for row in found.may_exceed.rows[:NUM_PROFILED]]
    return [row.candidate for row in found.rows[:NUM_PROFILED]]


def local_device(answers: Answers, place: Place) -> str:
    """The device to profile on: the one that was asked about, or the first one here where none was; else empty."""
    if answers.device:
        return place.local(answers.device)
    return next((each.local for each in place.devices if each.local), "")


def which(candidates: Sequence[Candidate]) -> Question:
    """Which of them, by its place."""
    labels = [f"{each.name} at {each.resolution} px" for each in candidates]
    return Question("Which one?", tuple(Choice(str(index), label) for index, label in enumerate(labels)))


def start_training() -> Question:
    """Whether to start what the rehearsal showed."""
    return Question("Start this training now?", (Choice("no", "no"), Choice("yes", "yes, start")))


def measure_first(name: str) -> Question:
    """Whether to measure the backbone that tells most about an unknown device."""
    return Question(f"Measure {name} here now?", (Choice("yes", "yes"), Choice("no", "no: change the limits")))


def file_name(dataset: str) -> Question:
    """Where to save."""
    return Question("Which file?", problem=_file_problem, default=f"luma-{dataset}.json")


def _file_problem(typed: str) -> str:
    if not typed.strip():
        return "a file name is missing; try luma.json"
    path = Path(typed.strip()).expanduser()
    return f"{path} exists already; choose another name" if path.exists() else ""


_INTERRUPTED = 130


def run_luma(arguments: Sequence[str]) -> int:
    """Show and run a command; its exit code. It gets the signals that are meant for us, so that it can save.

    Raises KeyboardInterrupt when it was stopped by Ctrl-C.
    """
    from luma_cli.train.launch import handing_on

    print(f"\n$ {spelled(arguments)}")
    code = handing_on([sys.executable, "-P", "-m", "luma_cli", *arguments])
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        print(f"(exit code {code})")
    return code


Ask = Callable[[Question], Reply]


def follow(ask: Ask, found: Recommendation, answers: Answers, place: Place) -> Move | None:
    """Offer the next step until the user goes back or quits; None when something was measured: answer anew."""
    while True:
        reply = ask(menu(found, answers, place))
        if isinstance(reply, Move):
            return reply
        if reply == "profile":
            _profile(found, local_device(answers, place))
            return None
        if reply == "why":
            run_luma([*recommend_arguments(answers), "--why"])
        elif (_train if reply == "train" else _save)(ask, found, answers) is Move.quit:
            return Move.quit


def _profile(found: Recommendation, device: str) -> None:
    chosen = [(each.name, each.resolution) for each in to_profile(found)]
    for arguments in profile_arguments(chosen, device):
        run_luma(arguments)


def _train(ask: Ask, found: Recommendation, answers: Answers) -> Reply:
    """Rehearse the training of one row, then start it if it is wanted. No training without a sound rehearsal."""
    candidates = [row.candidate for row in found.rows]
    reply = ask(which(candidates))
    if isinstance(reply, Move):
        return reply
    chosen = candidates[int(reply)]
    arguments = train_arguments(chosen.name, chosen.resolution, answers.dataset)
    if run_luma([*arguments, "--dry-run"]) != 0:
        return ""
    reply = ask(start_training())
    if reply == "yes":
        run_luma(arguments)
    return reply


def _save(ask: Ask, found: Recommendation, answers: Answers) -> Reply:
    from luma_cli.files import write_text

    reply = ask(file_name(answers.dataset))
    if isinstance(reply, str):
        path = Path(reply.strip()).expanduser()
        try:
            write_text(path, json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n")
            print(f"saved to {path}: what the same command prints with --json")
        except OSError as error:
            print(f"not saved: {path}: {error.strerror}; choose another file")
    return reply


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
    can_go_on = found.rows or (to_profile(found) and local_device(answers, dialogue.place))
    if not can_go_on:
        say("Nothing is recommended under these limits; set others.")
        return dialogue.before_limits()
    return follow(ask, found, answers, dialogue.place) or dialogue


def recommendation(answers: Answers) -> Recommendation:
    """What `luma recommend` answers. Raises NoAnswer, UsageError, StoreError."""
    from luma_cli.advise.recommend import recommend

    device = answers.device or None
    return recommend(answers.budgets, dataset=answers.dataset, device=device, licences=answers.licences)


def print_front(answers: Answers) -> None:
    """What `luma front` prints, or why there is no front."""
    from luma_cli.advise.front import front_of
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
    reply = ask(measure_first(nothing.name)) if device else "no"
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
