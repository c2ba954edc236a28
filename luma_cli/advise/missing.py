"""What to type when nothing is known of a cost on the device that was meant."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from luma_cli.advise import budgets as held
from luma_cli.advise.budgets import Priced
from luma_cli.advise.candidates import MODEST_MACS, Candidate, num_classes
from luma_cli.advise.pricing import Speed, workload
from luma_cli.advise.question import Question
from luma_cli.errors import NothingMeasured
from luma_cli.units import BudgetKind

# Where most published figures are: ADE20K crops of 512, Cityscapes crops of 1024.
_USUAL_RESOLUTION = {"ade20k": 512, "cityscapes": 1024}


def check_known(question: Question, pool: Sequence[Priced], speed: Speed) -> None:
    """Raises NothingMeasured, with the command that would tell, when a cost that is needed is known of no candidate."""
    unknown = [kind for kind in question.kinds if pool and not any(kind in each.costs for each in pool)]
    kind = next((kind for kind in unknown if kind not in held.EXACT), None)
    if kind is None:
        return
    bound = (budget.text for budget in question.budgets if budget.kind == kind)
    asked = next(bound, f"--objective {question.objective}")
    reason = speed.why(kind).partition("; try:")[0] or f"nothing is known of {held.TITLES[kind]}"
    anchor = _anchor(question, pool, speed, kind)
    raise NothingMeasured(
        f"{asked} cannot be answered: {reason}; run: {_command(question, anchor)}{shipped_hint(kind, reason)}",
        anchor.name,
        anchor.resolution,
    )


def shipped_hint(kind: BudgetKind, reason: str) -> str:
    """The other way out where the device was none whose figures ship; no energy ships of any."""
    is_elsewhere = kind != "joules" and "ships" in reason
    return ", or name a device whose figures ship, e.g. --device 'RTX 4090'" if is_elsewhere else ""


def _anchor(question: Question, pool: Sequence[Priced], speed: Speed, kind: BudgetKind) -> Candidate:
    """The candidate whose measurement tells most about the others, modest and at the size where the figures are."""
    usual = _USUAL_RESOLUTION[question.dataset]
    sized = [each for each in pool if each.candidate.resolution == usual] or list(pool)
    modest = [priced.candidate for priced in sized if (priced.candidate.macs or 0) <= MODEST_MACS]
    names: dict[str, Candidate] = {}
    for each in modest or [priced.candidate for priced in sized]:
        names.setdefault(each.architecture, each)
    loads = [workload(each, question.head, num_classes(question.dataset)) for each in names.values()]
    anchor = next(iter(speed.anchors(loads, 1, kind)), None)
    return names[anchor.workload.architecture] if anchor else next(iter(names.values()))


def _command(question: Question, anchor: Candidate) -> str:
    head = "" if question.head == "luma" else f" --head {question.head}"
    device = f" --device {shlex.quote(question.device)}" if question.device else ""
    return f"luma profile {anchor.name} --res {anchor.resolution}{head}{device}"
