"""The one line that says why a candidate stands where it does: evidence, costs with origin and slack, comparison."""

from __future__ import annotations

from luma_cli.accuracy.sightings import Prediction
from luma_cli.advise import budgets as held
from luma_cli.advise.axis import place
from luma_cli.advise.budgets import Priced
from luma_cli.advise.question import Question
from luma_cli.units import FLOORS, Budget


def why(question: Question, priced: Priced, prediction: Prediction, *more: str) -> str:
    """Evidence line, what speaks against it, every budgeted cost, and what else is to be said."""
    flag = f"extrapolated: {prediction.reason or 'outside the evidence'}" if prediction.extrapolated else ""
    return "; ".join(filter(None, (prediction.support.line, flag, *_spending(question, priced), *more)))


def compared(question: Question, priced: Priced, miou: float, first: Priced, first_miou: float, tie: bool) -> str:
    """How far from the first row's mIoU, and for what part of its cost on the front's axis."""
    mine, theirs = place(priced, question.axis), place(first, question.axis)
    ahead = miou - first_miou
    gap = f"{abs(ahead):.1f} mIoU {'above' if ahead > 0 else 'behind'} the first"
    price = f"at {_times(mine / theirs)} {_ceiling(question)}" if mine == mine and theirs > 0 else ""
    return " ".join(filter(None, ("ties with the first," if tie else "", gap, price)))


def _times(ratio: float) -> str:
    return "equal" if f"{ratio:.2g}" in ("1", "0.99") else f"{ratio:.2g}x its"


def _ceiling(question: Question) -> str:
    """What the axis measures, of a rate the time behind it: ratios of costs are said of what is better small."""
    return "time per image" if question.axis in FLOORS else held.TITLES[question.axis]


def _spending(question: Question, priced: Priced) -> list[str]:
    bound = {budget.kind: budget for budget in question.budgets}
    parts = []
    for kind in question.kinds:
        quantity = priced.costs.get(kind)
        if quantity is not None:
            said = held.explain(quantity, question.convention)
            parts.append(f"{said}, {_room(priced, bound[kind])}" if kind in bound else said)
    return parts


def _room(priced: Priced, budget: Budget) -> str:
    left = held.slack(priced, budget)
    if left < 0:
        return f"may not meet {budget.text}"
    least = "" if held.worst(priced.costs[budget.kind], budget.is_floor) == priced.cost(budget.kind) else "at least "
    return f"{least}{left:.0%} above {budget.text}" if budget.is_floor else f"{least}{left:.0%} of {budget.text} left"
