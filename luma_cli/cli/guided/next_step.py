"""What can be done with an answer: the menu behind it, and the questions of each entry. Knows nothing of terminals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.cli.guided.dialogue import Answers
from luma_cli.cli.guided.place import Place
from luma_cli.cli.guided.question import Choice, Question

if TYPE_CHECKING:
    from luma_cli.advise.answer import Recommendation
    from luma_cli.advise.candidates import Candidate

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
