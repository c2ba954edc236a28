"""What to type when nothing is known of a cost on the device that was meant."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from luma_cli.advise import budgets as held
from luma_cli.advise.budgets import Priced
from luma_cli.advise.pricing import Speed
from luma_cli.advise.question import Question
from luma_cli.errors import NothingMeasured

# Where most published figures are: ADE20K crops of 512, Cityscapes crops of 1024.
_USUAL_RESOLUTION = {"ade20k": 512, "cityscapes": 1024}
ANCHOR = "convnext_t"


def check_known(question: Question, pool: Sequence[Priced], speed: Speed | None) -> None:
    """Raises NothingMeasured, with the command that would tell, when a cost that is needed is known of no candidate."""
    for kind in question.kinds:
        if kind in held.EXACT or not pool or any(kind in each.costs for each in pool):
            continue
        asked = next((budget.text for budget in question.budgets if budget.kind == kind), f"--objective {question.objective}")
        reason = speed.why(kind) if speed is not None else f"nothing is known of {held.TITLES[kind]}"
        raise NothingMeasured(
            f"{asked} cannot be answered: {reason}; run: {command(question)}, or name a device whose figures ship, "
            "e.g. --device 'RTX 4090'",
            ANCHOR,
            resolution(question),
        )


def command(question: Question) -> str:
    """The `luma profile` line of the one measurement that says most about all others."""
    head = "" if question.head == "luma" else f" --head {question.head}"
    device = f" --device {shlex.quote(question.device)}" if question.device else ""
    return f"luma profile {ANCHOR} --res {resolution(question)}{head}{device}"


def resolution(question: Question) -> int:
    """The size at which to measure first."""
    return question.resolutions[0] if question.resolutions else _USUAL_RESOLUTION[question.dataset]
