"""The recommendation as a value: what was asked, what is best on which scale and why, and what cannot be ranked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from luma_cli.advise.budgets import cost
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.predictor import Prediction
from luma_cli.evidence.evidence import Evidence, Scale
from luma_cli.evidence.own_run import OwnRow
from luma_cli.speed.measured import Conditions
from luma_cli.units import Budget

RankedBy = Literal["miou_percent", "macs"]


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate of the answer.

    rank: from 1. tie: within seed noise of the first and therefore not worse than it. why: one line.
    """

    rank: int
    candidate: Candidate
    prediction: Prediction | None
    evidence: tuple[Evidence, ...]
    why: str
    tie: bool = False

    def to_json(self, budgets: tuple[Budget, ...]) -> dict[str, Any]:
        """The candidate, its accuracy with evidence, and its value under every budget."""
        prediction = self.prediction
        return {
            "rank": self.rank,
            **self.candidate.to_json(),
            "miou_percent": prediction.miou_percent if prediction else None,
            "miou_range": [prediction.low, prediction.high] if prediction and prediction.low is not None else None,
            "note": (prediction.note if prediction else "") or None,
            "tie_with_first": self.tie,
            "costs": {budget.kind: _cost_json(self.candidate, budget) for budget in budgets},
            "evidence": [row.to_json() for row in self.evidence],
            "evidence_at_other_sizes": list(prediction.elsewhere) if prediction else [],
            "why": self.why,
        }


def _cost_json(candidate: Candidate, budget: Budget) -> dict[str, Any]:
    exact = budget.kind in ("macs", "params")
    return {
        "value": cost(candidate, budget.kind),
        "limit": budget.limit,
        "source": "exact" if exact else "measured",
        "fingerprint": None if exact or candidate.measured is None else candidate.measured.fingerprint,
    }


@dataclass(frozen=True, slots=True)
class Ranking:
    """The front on one scale, best first.

    num_with_evidence counts candidates within budget, on the front or not; num_figures the different results behind
    them: candidates that share their evidence count once, doubtful figures do not count.
    """

    scale: Scale
    rows: tuple[Row, ...]
    num_with_evidence: int
    num_figures: int
    num_dominated: int

    def to_json(self, budgets: tuple[Budget, ...]) -> dict[str, Any]:
        """The scale and its rows."""
        return {
            "scale": self.scale.to_json(),
            "with_evidence": self.num_with_evidence,
            "dominated": self.num_dominated,
            "rows": [row.to_json(budgets) for row in self.rows],
        }


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer to one question.

    scale: the only scale that `rows` stand on; None when they are ranked without accuracy evidence. other_scales:
    fronts that must not be compared with `rows` or with each other. without_evidence: a few of the
    `num_without_evidence` candidates that meet every budget and have no evidence on `scale` at their size.
    conditions: what measured budgets were measured under. notes: everything a reader must know, one line each.
    measured_here: the user's own runs, whether they stand in a ranking or not.
    """

    dataset: str
    budgets: tuple[Budget, ...]
    ranked_by: RankedBy
    scale: Scale | None
    rows: tuple[Row, ...]
    num_within_budget: int
    num_dominated: int
    other_scales: tuple[Ranking, ...]
    num_without_evidence: int
    without_evidence: tuple[Row, ...]
    conditions: Conditions | None
    notes: tuple[str, ...]
    measured_here: tuple[OwnRow, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Schema 1. Numbers that are not known are null."""
        return {
            "schema": 1,
            "dataset": self.dataset,
            "budgets": [{"text": each.text, "kind": each.kind, "limit": each.limit} for each in self.budgets],
            "ranked_by": self.ranked_by,
            "scale": self.scale.to_json() if self.scale else None,
            "recommendations": [row.to_json(self.budgets) for row in self.rows],
            "within_budget": self.num_within_budget,
            "dominated": self.num_dominated,
            "other_scales": [ranking.to_json(self.budgets) for ranking in self.other_scales],
            "without_evidence": {
                "count": self.num_without_evidence,
                "examples": [row.to_json(self.budgets) for row in self.without_evidence],
            },
            "measured_here": [row.to_json() for row in self.measured_here],
            "conditions": self.conditions.to_json() if self.conditions else None,
            "notes": list(self.notes),
        }
