"""Which backbone, pretraining and resolution under a budget: from candidates, costs and a learned model to an answer.

Everything it works on is an argument. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from luma_cli.accuracy.sightings import AccuracyModel, Prediction
from luma_cli.accuracy.subjects import Subject
from luma_cli.advise import budgets as held
from luma_cli.advise.answer import Aside, Price, Reasons, Recommendation, Row
from luma_cli.advise.axis import place
from luma_cli.advise.budgets import Priced
from luma_cli.advise.chances import NUM_DRAWS
from luma_cli.advise.chooser import Chooser
from luma_cli.advise.learned_front import has_evidence
from luma_cli.advise.own_runs import settled
from luma_cli.advise.pricing import Speed
from luma_cli.advise.question import Question, unmet
from luma_cli.advise.ranking import Order, Ranked, order
from luma_cli.advise.subjects import scale_note, subject
from luma_cli.advise.wording import compared, why
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_runs import OwnRow
from luma_cli.units import Budget

_NUM_ASIDE, _NUM_NEAREST = 3, 5


def recommend(
    question: Question,
    pool: Iterable[Priced],
    model: AccuracyModel,
    *,
    evidence: Iterable[Evidence] = (),
    own: Sequence[OwnRow] = (),
    speed: Speed | None = None,
    chooser: Chooser | None = None,
    top: int = 3,
    with_reasons: bool = False,
) -> Recommendation:
    """The candidates that surely meet every budget, best first by the question's objective.

    pool: candidates with the question's kinds of cost. model: of accuracy, fitted to `evidence`, whose rows it names in
    its reasons. own: the user's own runs as judged, shown beside the answer. speed: where a cost depends on a device.
    chooser: a baseline that decides in the model's place. Equal questions have equal answers, whatever the order of the
    candidates.

    Raises NoAnswer when nothing can meet the budgets, naming what comes nearest; UsageError for a `top` below 1.
    """
    if top < 1:
        raise UsageError(f"top is {top}, expected at least 1")
    priced = sorted(pool, key=lambda each: each.candidate.key)
    within, may_exceed = _affordable(question, priced)
    if not within and not may_exceed:
        raise _unanswerable(question, priced, speed)
    desk = _Desk(question, model, {row.id: row for row in evidence} if with_reasons else {}, with_reasons)
    judged = desk.judge(within)
    supported = [each for each in judged if has_evidence(each.prediction)]
    found = desk.rank(supported, chooser)
    rows = desk.rows(found.rows[:top])
    binding = held.binding(found.rows[0].priced, question.budgets) if found.rows else None
    return Recommendation(
        question=question,
        rows=rows,
        scale_note=scale_note(model, question.head),
        num_within_budget=len(within),
        num_ranked=len(supported),
        num_ties=found.num_ties,
        chosen_by=chooser.title if chooser else "model",
        binding=binding,
        price=desk.price(priced, found.rows, binding) if binding and question.objective == "miou" else None,
        may_exceed=desk.aside(may_exceed),
        unsupported=desk.aside([each.priced for each in judged if not has_evidence(each.prediction)]),
        notes=(*_chooser_notes(chooser), *_notes(question, priced), *_said_of_costs(question, rows)),
        next_run=desk.next_run(judged, own) if judged else "",
        measured_here=settled(own, within, priced, question),
    )


def _unanswerable(question: Question, pool: Sequence[Priced], speed: Speed | None) -> NoAnswer:
    """Why nothing can meet the budgets. Raises NothingMeasured when a cost that is needed is known of no candidate."""
    if speed is not None:
        from luma_cli.advise.missing import check_known

        check_known(question, pool, speed)
    return NoAnswer(unmet(question, pool))


def _affordable(question: Question, pool: Iterable[Priced]) -> tuple[list[Priced], list[Priced]]:
    """What surely meets every budget, and what may exceed one; both with a known cost on the front's axis."""
    known = [each for each in pool if not math.isnan(place(each, question.axis))]
    standings = [(held.standing(each, question.budgets), each) for each in known]
    return (
        [each for standing, each in standings if standing == "within"],
        [each for standing, each in standings if standing == "may exceed"],
    )


@dataclass(frozen=True, slots=True)
class _Desk:
    """A question and the model that answers it; what was predicted once is kept by checkpoint and size."""

    question: Question
    model: AccuracyModel
    evidence: Mapping[str, Evidence]
    with_reasons: bool
    kept: dict[tuple[str, int], tuple[Subject, Prediction]] = field(default_factory=dict)

    def judge(self, pool: Iterable[Priced]) -> list[_Judged]:
        """The pool with subjects and predictions, in order."""
        candidates = [each.candidate for each in pool]
        new = {each.run_key: each for each in candidates if each.run_key not in self.kept}
        subjects = [subject(each, self.question.dataset, self.question.head) for each in new.values()]
        predictions = self.model.predict(subjects) if subjects else []
        self.kept.update(zip(new, zip(subjects, predictions, strict=True), strict=True))
        return [_Judged(each, *self.kept[each.candidate.run_key]) for each in pool]

    def rank(self, pool: Sequence[_Judged], chooser: Chooser | None) -> Order:
        """The candidates in order; nothing without any."""
        if not pool:
            return Order((), 0)
        subjects, macs = [each.subject for each in pool], [each.priced.cost("macs") for each in pool]
        return order(
            self.question,
            [each.priced for each in pool],
            [each.prediction for each in pool],
            self.model.draws(subjects, NUM_DRAWS),
            chooser.scores(subjects, macs) if chooser else None,
        )

    def rows(self, ranked: Sequence[Ranked]) -> tuple[Row, ...]:
        """The rows with what is to be said of each."""
        return tuple(
            Row(
                rank=index + 1,
                priced=each.priced,
                prediction=each.prediction,
                why=why(self.question, each.priced, each.prediction, *self._compared(each, ranked[0])),
                best=each.best,
                on_front=each.on_front,
                tie=each.tie,
                reasons=self._reasons(each) if self.with_reasons else None,
            )
            for index, each in enumerate(ranked)
        )

    def _compared(self, row: Ranked, first: Ranked) -> tuple[str, ...]:
        if row is first:
            return ()
        mious = row.prediction.miou_percent, first.prediction.miou_percent
        return (compared(self.question, row.priced, mious[0], first.priced, mious[1], row.tie),)

    def _reasons(self, row: Ranked) -> Reasons:
        (judged,) = self.judge([row.priced])
        nearest = [self.evidence[each] for each in row.prediction.support.ids if each in self.evidence]
        return Reasons(tuple(self.model.effects(judged.subject)), tuple(nearest[:_NUM_NEAREST]))

    def aside(self, pool: Sequence[Priced]) -> Aside:
        """How many there are, and the highest predictions among them, one size of each checkpoint."""
        ordered = sorted(self.judge(pool), key=lambda each: (-each.miou, each.priced.candidate.key))
        first: dict[str, _Judged] = {}
        for each in ordered:
            first.setdefault(each.priced.candidate.timm_name, each)
        rows = [
            Row(index + 1, each.priced, each.prediction, why(self.question, each.priced, each.prediction))
            for index, each in enumerate(list(first.values())[:_NUM_ASIDE])
        ]
        return Aside(len(pool), tuple(rows))

    def price(self, pool: Sequence[Priced], ranked: Sequence[Ranked], binding: Budget) -> Price | None:
        """What the best under twice the binding budget is predicted to gain over the best under the budget itself."""
        doubled = held.relaxed(binding)
        budgets = tuple(doubled if each is binding else each for each in self.question.budgets)
        looser = replace(self.question, budgets=budgets)
        (best,) = self.judge([max(ranked, key=lambda row: row.prediction.miou_percent).priced])
        wider = [each for each in self.judge(_affordable(looser, pool)[0]) if has_evidence(each.prediction)]
        then = max(wider, key=lambda each: (each.miou, each.priced is best.priced), default=None)
        if then is None:
            return None
        drawn = self.model.draws([best.subject, then.subject], NUM_DRAWS)
        gain = sorted((drawn[:, 1] - drawn[:, 0]).tolist())
        ends = gain[len(gain) // 10], gain[len(gain) - 1 - len(gain) // 10]
        return Price(doubled, then.priced.candidate, then.miou - best.miou, ends)

    def next_run(self, pool: Sequence[_Judged], own: Sequence[OwnRow]) -> str:
        """The run that is worth most for this answer."""
        from luma_cli.advise.worth import worthiest

        trained = frozenset(row.run.run_key for row in own if not row.why_not)
        judged = [(each.priced, each.subject, each.prediction) for each in pool]
        return worthiest(self.question, judged, self.model, trained)


class _Judged(NamedTuple):
    """A candidate with what is predicted of it."""

    priced: Priced
    subject: Subject
    prediction: Prediction

    @property
    def miou(self) -> float:
        return self.prediction.miou_percent


def _chooser_notes(chooser: Chooser | None) -> list[str]:
    return [f"ordered by {chooser.title}, not by the model: {chooser.reason}"] if chooser else []


def _notes(question: Question, pool: Sequence[Priced]) -> list[str]:
    notes = []
    if question.head == "none":
        notes.append("costs are of the backbone alone; mIoU is with the LUMA head, whose costs come on top")
    elif question.head != "luma":
        notes.append(f"costs are with head {question.head}; backbones that it cannot be attached to are left out")
    for kind in question.kinds:
        uncounted = sum(kind not in each.costs for each in pool)
        if uncounted:
            reason = "only known as a lower bound" if kind in held.EXACT else "not known on this device"
            notes.append(f"{uncounted} candidates left out: their {held.TITLES[kind]} are {reason}")
    return notes


def _said_of_costs(question: Question, rows: Iterable[Row]) -> list[str]:
    """What the costs of the rows say of themselves, each thing once."""
    notes = []
    for kind in question.kinds:
        said = [row.priced.costs[kind].note for row in rows if kind in row.priced.costs]
        parts = dict.fromkeys(part for note in said for part in note.split("; ") if part)
        if parts:
            notes.append(f"{held.TITLES[kind]}: {'; '.join(parts)}")
    return notes
