"""What follows an answer: why, profiling, training, saving, each by the command that a user would type."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.cli.guided import next_step
from luma_cli.cli.guided.command_line import profile_arguments, recommend_arguments, train_arguments
from luma_cli.cli.guided.dialogue import Answers
from luma_cli.cli.guided.place import Place
from luma_cli.cli.guided.question import Move, Question, Reply
from luma_cli.cli.guided.running import run_luma

if TYPE_CHECKING:
    from luma_cli.advise.answer import Recommendation

Ask = Callable[[Question], Reply]


def follow(ask: Ask, found: Recommendation, answers: Answers, place: Place) -> Move | None:
    """Offer the next step until the user goes back or quits; None when something was measured: answer anew."""
    while True:
        reply = ask(next_step.menu(found, answers, place))
        if isinstance(reply, Move):
            return reply
        if reply == "profile":
            _profile(found, next_step.local_device(answers, place))
            return None
        if reply == "why":
            run_luma([*recommend_arguments(answers), "--why"])
        elif (_train if reply == "train" else _save)(ask, found, answers) is Move.quit:
            return Move.quit


def _profile(found: Recommendation, device: str) -> None:
    chosen = [(each.name, each.resolution) for each in next_step.to_profile(found)]
    for arguments in profile_arguments(chosen, device):
        run_luma(arguments)


def _train(ask: Ask, found: Recommendation, answers: Answers) -> Reply:
    """Rehearse the training of one row, then start it if it is wanted. No training without a sound rehearsal."""
    candidates = [row.candidate for row in found.rows]
    reply = ask(next_step.which(candidates))
    if isinstance(reply, Move):
        return reply
    chosen = candidates[int(reply)]
    arguments = train_arguments(chosen.name, chosen.resolution, answers.dataset)
    if run_luma([*arguments, "--dry-run"]) != 0:
        return ""
    reply = ask(next_step.start_training())
    if reply == "yes":
        run_luma(arguments)
    return reply


def _save(ask: Ask, found: Recommendation, answers: Answers) -> Reply:
    from luma_cli.files import write_text

    reply = ask(next_step.file_name(answers.dataset))
    if isinstance(reply, str):
        path = Path(reply.strip()).expanduser()
        try:
            write_text(path, json.dumps(found.to_json(), indent=1, allow_nan=False) + "\n")
            print(f"saved to {path}: what the same command prints with --json")
        except OSError as error:
            print(f"not saved: {path}: {error.strerror}; choose another file")
    return reply
