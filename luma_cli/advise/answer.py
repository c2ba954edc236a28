"""The recommendation as a value: what was asked, what is best, how sure that is, what it costs, what to run next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luma_cli.accuracy.sightings import Effect, Prediction
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.fronts import place
from luma_cli.advise.question import TITLES, Priced, Question, explain, slack, worst
from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_runs import OwnRow
from luma_cli.speed.quantity import Quantity
from luma_cli.to_json import to_json
from luma_cli.units import FLOORS, Budget, BudgetKind


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why the model says what it says: effects in mIoU points, largest first, and the nearest rows of the evidence."""

    effects: tuple[Effect, ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate of the answer.

    rank: from 1. best: part of the draws in which it meets the objective best, of all that are ranked. on_front: part
    in which nothing cheaper is as good; both None for a candidate that is not ranked. tie: could as well be the first,
    which is cheaper. why: one line. reasons: None unless asked for.
    """

    rank: int
    priced: Priced
    prediction: Prediction
    why: str
    best: float | None = None
    on_front: float | None = None
    tie: bool = False
    reasons: Reasons | None = None

    @property
    def candidate(self) -> Candidate:
        """What is recommended."""
        return self.priced.candidate

    def to_json(self, question: Question) -> dict[str, Any]:
        """The candidate, its predicted accuracy, its chances, and its cost under every budget."""
        return {
            "rank": self.rank,
            **self.candidate.to_json(),
            **self.prediction.to_json(),
            "p_best": self.best,
            "p_on_front": self.on_front,
            "tie": self.tie,
            "costs": {kind: _cost_json(self.priced, kind, question.budgets) for kind in question.kinds},
            "why": self.why,
            "effects": self.reasons and to_json(self.reasons.effects),
            "nearest": self.reasons and to_json(self.reasons.evidence),
        }


def _cost_json(priced: Priced, kind: BudgetKind, budgets: Sequence[Budget]) -> dict[str, Any] | None:
    quantity: Quantity | None = priced.costs.get(kind)
    if quantity is None:
        return None
    limit = next((budget for budget in budgets if budget.kind == kind), None)
    bound = {} if limit is None else {"limit": limit.limit, "slack": slack(priced, limit)}
    return {**quantity.to_json(), **bound}


@dataclass(frozen=True, slots=True)
class Price:
    """What twice the binding budget (of a rate, half) buys: a candidate, and mIoU points with their 80 % interval."""

    budget: Budget
    candidate: Candidate
    points: float
    interval_80: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """The relaxed budget, what it buys and how much that is."""
        return {
            "kind": self.budget.kind,
            "limit": self.budget.limit,
            "backbone": self.candidate.name,
            "resolution": self.candidate.resolution,
            "miou_points": self.points,
            "interval_80": list(self.interval_80),
        }


@dataclass(frozen=True, slots=True)
class Aside:
    """Candidates that are not ranked: how many there are, and the most promising ones."""

    count: int = 0
    rows: tuple[Row, ...] = ()

    def to_json(self, question: Question) -> dict[str, Any]:
        """The count and the rows."""
        return {"count": self.count, "examples": [row.to_json(question) for row in self.rows]}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer to one question.

    rows: the winner first; empty when nothing that surely fits has evidence, and then nothing is recommended.
    scale_note: what the level of the mIoU stands on. chosen_by: `model`, or the baseline that beats it on this dataset.
    binding: the budget with least slack for the winner. num_ranked: candidates within every budget that have evidence.
    may_exceed: those whose predicted cost fits, but not at the dear end of its 80 % interval. unsupported: within
    budget, of families that no evidence speaks of. next_run: the `luma train` line that would teach most, with the
    reason; empty when none was looked for. notes: what a reader must know, one line each. measured_here: the user's own
    runs, with why those that are no evidence are not.
    """

    question: Question
    rows: tuple[Row, ...]
    scale_note: str
    num_within_budget: int
    num_ranked: int
    num_ties: int = 0
    chosen_by: str = "model"
    binding: Budget | None = None
    price: Price | None = None
    may_exceed: Aside = Aside()
    unsupported: Aside = Aside()
    next_run: str = ""
    notes: tuple[str, ...] = ()
    measured_here: tuple[OwnRow, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Schema 2. Numbers that are not known are null; mIoU in percent, costs in the kind's own unit."""
        question = self.question
        return {
            "schema": 2,
            "dataset": question.dataset,
            "head": question.head,
            "objective": question.objective,
            "device": question.device,
            "budgets": [{"text": each.text, "kind": each.kind, "limit": each.limit} for each in question.budgets],
            "front_axis": question.axis,
            "scale": self.scale_note,
            "chosen_by": self.chosen_by,
            "recommendations": [row.to_json(question) for row in self.rows],
            "within_budget": self.num_within_budget,
            "ranked": self.num_ranked,
            "ties": self.num_ties,
            "binding_budget": self.binding.text if self.binding else None,
            "per_doubling": self.price.to_json() if self.price else None,
            "may_exceed": self.may_exceed.to_json(question),
            "without_evidence": self.unsupported.to_json(question),
            "next_run": self.next_run or None,
            "measured_here": to_json(self.measured_here),
            "notes": list(self.notes),
        }


def why(question: Question, priced: Priced, prediction: Prediction, *more: str) -> str:
    """Evidence line, what speaks against it, every budgeted cost, and what else is to be said."""
    flag = f"extrapolated: {prediction.reason or 'outside the evidence'}" if prediction.extrapolated else ""
    return "; ".join(filter(None, (prediction.support.line, flag, *_spending(question, priced), *more)))


def compared(question: Question, row: Row, first: Row) -> str:
    """How far from the first row's mIoU, and for what part of its cost on the front's axis."""
    mine, theirs = place(row.priced, question.axis), place(first.priced, question.axis)
    ahead = row.prediction.miou_percent - first.prediction.miou_percent
    gap = f"{abs(ahead):.1f} mIoU {'above' if ahead > 0 else 'behind'} the first"
    # Ratios of costs are said of what is better small: of a rate that is the time behind it.
    axis = "time per image" if question.axis in FLOORS else TITLES[question.axis]
    ratio = "equal" if f"{mine / theirs:.2g}" in ("1", "0.99") else f"{mine / theirs:.2g}x its"
    return " ".join(filter(None, ("ties with the first," if row.tie else "", gap, f"at {ratio} {axis}")))


def _spending(question: Question, priced: Priced) -> list[str]:
    bound = {budget.kind: budget for budget in question.budgets}
    parts = []
    for kind in question.kinds:
        quantity = priced.costs.get(kind)
        if quantity is not None:
            said = explain(quantity, question.convention)
            parts.append(f"{said}, {_room(priced, bound[kind])}" if kind in bound else said)
    return parts


def _room(priced: Priced, budget: Budget) -> str:
    left = slack(priced, budget)
    if left < 0:
        return f"may not meet {budget.text}"
    least = "" if worst(priced.costs[budget.kind], budget.is_floor) == priced.cost(budget.kind) else "at least "
    return f"{least}{left:.0%} above {budget.text}" if budget.is_floor else f"{least}{left:.0%} of {budget.text} left"
