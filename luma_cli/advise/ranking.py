"""Candidates within budget in the order of the objective: from joint draws of mIoU to chances, ties and a winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from luma_cli.accuracy.sightings import Prediction
from luma_cli.advise import budgets as held
from luma_cli.advise.axis import draw_places, place
from luma_cli.advise.budgets import Priced
from luma_cli.advise.chances import best_chance
from luma_cli.advise.drawn_front import Floats
from luma_cli.advise.hypervolume import REFERENCE_MIOU
from luma_cli.advise.knee import knees
from luma_cli.advise.learned_front import on_front_chances
from luma_cli.advise.question import Question
from luma_cli.advise.ties import TIE_MIOU, ties

# Less often on the front than in one draw of twenty: dominated for all that is known, and not worth a row.
_ON_FRONT = 0.05


@dataclass(frozen=True, slots=True)
class Ranked:
    """One candidate of the order.

    best: part of the draws in which it meets the objective best, of all that are ranked. on_front: part of the draws
    in which nothing cheaper is as good. tie: it could as well be the winner.
    """

    priced: Priced
    prediction: Prediction
    best: float
    on_front: float
    tie: bool


@dataclass(frozen=True, slots=True)
class Order:
    """The winner first, then what ties with it, the seen before the extrapolated and the cheap before the dear, then
    the rest of the likely front, best first.

    num_dominated: candidates left out because they are hardly ever on the front.
    """

    rows: tuple[Ranked, ...]
    num_dominated: int

    @property
    def num_ties(self) -> int:
        """Candidates that could as well be the winner, itself included; 0 when it is clear."""
        return sum(row.tie for row in self.rows)


def order(
    question: Question,
    pool: Sequence[Priced],
    predictions: Sequence[Prediction],
    draws: Floats,
    scores: Sequence[float] | None = None,
) -> Order:
    """The order of the pool, none of which may be missing the cost on the question's axis.

    draws: [draws, pool] of mIoU. scores: of a baseline that decides in the model's place, better large; None for the
    model. What is on the front in no draw changes nothing.
    """
    values, best, tolerance = _objective(question, pool, predictions, draws)
    values = list(scores) if scores is not None else values
    front = on_front_chances(pool, question.axis, [place(each, question.axis) for each in pool], draws)
    # Of what ties, that which the evidence spans comes before what is extrapolated, and then the cheaper.
    expenses = [
        (each.extrapolated, *held.expense(priced, question.budgets))
        for priced, each in zip(pool, predictions, strict=True)
    ]
    leader = min(range(len(pool)), key=lambda at: (-values[at], expenses[at], pool[at].candidate.key))
    # What no draw puts on the front must not tie either, or adding it would change who wins.
    known = [value if at == leader or front[at] > 0 else float("nan") for at, value in enumerate(values)]
    tied = ties(known, expenses, best.tolist(), tolerance if scores is None else 0.0)
    members = tied.members if tied.is_tie else (tied.winner,)
    likely = [at for at in range(len(pool)) if front[at] >= _ON_FRONT and at not in members]
    rest = sorted(likely, key=lambda at: (-values[at], expenses[at], pool[at].candidate.key))
    rows = tuple(
        Ranked(pool[at], predictions[at], float(best[at]), front[at], tied.is_tie and at in members)
        for at in (*members, *rest)
    )
    return Order(rows, len(pool) - len(rows))


def _objective(
    question: Question, pool: Sequence[Priced], predictions: Sequence[Prediction], draws: Floats
) -> tuple[list[float], Floats, float]:
    """The value of each candidate, its chance to have the best, and within which difference values tie."""
    mious = [each.miou_percent for each in predictions]
    if question.objective == "miou":
        return mious, best_chance(draws), TIE_MIOU
    places = [place(each, question.axis) for each in pool]
    if question.objective == "miou-per-ms":
        values = [miou / ms for miou, ms in zip(mious, places, strict=True)]
        uncertain = draw_places(pool, question.axis, len(draws))
        return values, best_chance(draws / uncertain), TIE_MIOU / places[values.index(max(values))]
    least = REFERENCE_MIOU.get(question.dataset, 0.0)
    votes = np.bincount([each for each in knees(places, draws, least) if each >= 0], minlength=len(mious))
    if not votes.any():
        return mious, best_chance(draws), TIE_MIOU
    share = votes / len(draws)
    return share.tolist(), share, 0.0
