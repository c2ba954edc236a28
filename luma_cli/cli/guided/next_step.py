"""What can be done with an answer: the menu behind it, and the questions of each entry. Knows nothing of terminals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.cli.guided.dialogue import Answers
from luma_cli.cli.guided.place import Place
from luma_cli.cli.guided.question import Choice, Question

if TYPE_CHECKING:
    from luma_cli.advise.answer import Row

NUM_PROFILED = 3


def menu(rows: tuple[Row, ...], answers: Answers, place: Place) -> Question:
    """What to do next. Profiling is offered where the device of the question is in this machine, or none was named."""
    here = local_device(answers, place)
    top = min(NUM_PROFILED, len(rows))
    profile = Choice("profile", f"profile the top {top} on this machine ({here})")
    of_rows = [Choice("why", "show why"), *([profile] if here else []), Choice("train", "train one of them")]
    return Question("What next?", (*(of_rows if rows else ()), Choice("save", "save the answer to a file")))


def local_device(answers: Answers, place: Place) -> str:
    """The device to profile on: the one that was asked about, or the first one here where none was; else empty."""
    if answers.device:
        return place.local(answers.device)
    return next((each.local for each in place.devices if each.local), "")


def which(rows: tuple[Row, ...]) -> Question:
    """Which row of the answer, by its place in it."""
    labels = [f"{row.candidate.name} at {row.candidate.resolution} px" for row in rows]
    return Question("Which one?", tuple(Choice(str(index), label) for index, label in enumerate(labels)))


def start_training() -> Question:
    """Whether to start what the rehearsal showed."""
    return Question("Start this training now?", (Choice("no", "no"), Choice("yes", "yes, start")))


def file_name(dataset: str) -> Question:
    """Where to save."""
    return Question("Which file?", problem=_file_problem, default=f"luma-{dataset}.json")


def _file_problem(typed: str) -> str:
    if not typed.strip():
        return "a file name is missing; try luma.json"
    path = Path(typed.strip()).expanduser()
    return f"{path} exists already; choose another name" if path.exists() else ""
