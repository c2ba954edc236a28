"""Which backbone, pretraining and resolution under a budget: from candidates, costs and a learned model to an answer.

Everything it works on is an argument. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from luma_cli.accuracy.prediction import AccuracyModel, Prediction
from luma_cli.accuracy.subject import Subject
from luma_cli.advise import budgets as held
from luma_cli.advise.answer import Aside, Price, Reasons, Recommendation, Row
from luma_cli.advise.budgets import Priced
from luma_cli.advise.candidates import Candidate, num_classes
from luma_cli.advise.chooser import Chooser
from luma_cli.advise.missing import check_known
from luma_cli.advise.own_runs import settled
from luma_cli.advise.pricing import Speed, price
from luma_cli.advise.question import Question, unmet
from luma_cli.advise.ranking import Order, Ranked, order
from luma_cli.advise.subjects import subject
from luma_cli.advise.wording import compared, why
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_run import OwnRow
from luma_cli.units import Budget, convention_caption

_NUM_ASIDE, _NUM_NEAREST = 3, 5


def recommend(
    question: Question,
    candidates: Sequence[Candidate],
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

    model: of accuracy, fitted to `evidence`, whose rows it names in its reasons. own: the user's own runs as judged,
    shown beside the answer. speed: where a cost depends on a device. chooser: a baseline that decides in the model's
    place. Equal questions have equal answers, whatever the order of the candidates.

    Raises NoAnswer when nothing can meet the budgets, naming what comes nearest; UsageError for a `top` below 1.
    """
    if top < 1:
        raise UsageError(f"top is {top}, expected at least 1")
    eligible = question.eligible(candidates)
    priced = price(eligible, question.kinds, speed, question.head, num_classes(question.dataset))
    within, may_exceed = _affordable(question, priced)
    if not within and not may_exceed:
        check_known(question, priced, speed)
        raise NoAnswer(unmet(question, priced))
    desk = _Desk(question, model, {row.id: row for row in evidence} if with_reasons else {}, with_reasons)
    supported, unsupported = desk.split(within)
    found = desk.rank(supported, chooser)
    rows = desk.rows(found.rows[:top])
    binding = held.binding(found.rows[0].priced, question.budgets) if found.rows else None
    return Recommendation(
        question=question,
        rows=rows,
        scale_note=model.scale_note,
        num_within_budget=len(within),
        num_ranked=len(supported),
        num_ties=found.num_ties,
        chosen_by=chooser.title if chooser else "model",
        binding=binding,
        price=desk.price(priced, found.rows, binding) if binding and question.objective == "miou" else None,
        may_exceed=desk.aside(may_exceed),
        unsupported=desk.aside(unsupported),
        notes=(*_chooser_notes(chooser), *_notes(question, priced)),
        measured_here=settled(own, within, priced, question),
    )


def _affordable(question: Question, pool: Iterable[Priced]) -> tuple[list[Priced], list[Priced]]:
    """What surely meets every budget, and what may exceed one; both with a known cost on the front's axis."""
    known = [each for each in pool if question.axis_cost(each) == question.axis_cost(each)]
    standings = [(held.standing(each, question.budgets), each) for each in known]
    return (
        [each for standing, each in standings if standing == "within"],
        [each for standing, each in standings if standing == "may exceed"],
    )


@dataclass(frozen=True, slots=True)
class _Desk:
    """A question and the model that answers it."""

    question: Question
    model: AccuracyModel
    evidence: Mapping[str, Evidence]
    with_reasons: bool

    def subjects(self, pool: Iterable[Priced]) -> list[Subject]:
        return [subject(each.candidate, self.question.dataset, self.question.head) for each in pool]

    def split(self, pool: Sequence[Priced]) -> tuple[list[tuple[Priced, Prediction]], list[Priced]]:
        """Candidates that evidence speaks of, with their predictions, and those of which none does."""
        pairs = list(zip(pool, self.model.predict(self.subjects(pool)), strict=True))
        return (
            [pair for pair in pairs if _is_supported(pair[1])],
            [each for each, prediction in pairs if not _is_supported(prediction)],
        )

    def rank(self, pairs: Sequence[tuple[Priced, Prediction]], chooser: Chooser | None) -> Order:
        """The supported candidates in order; nothing without any."""
        if not pairs:
            return Order((), 0)
        pool, subjects = [each for each, _ in pairs], self.subjects(each for each, _ in pairs)
        scores = chooser.scores(subjects, [each.cost("macs") for each in pool]) if chooser else None
        return order(self.question, pool, [found for _, found in pairs], self.model.draws(subjects), scores)

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
        (asked,) = self.subjects([row.priced])
        nearest = [self.evidence[each] for each in row.prediction.support.ids if each in self.evidence]
        return Reasons(tuple(self.model.effects(asked)), tuple(nearest[:_NUM_NEAREST]))

    def aside(self, pool: Sequence[Priced]) -> Aside:
        """How many there are, and the highest predictions among them, one size of each checkpoint."""
        pairs = zip(pool, self.model.predict(self.subjects(pool)) if pool else (), strict=True)
        ordered = sorted(pairs, key=lambda pair: (-pair[1].miou_percent, pair[0].candidate.key))
        first = {each.candidate.timm_name: (each, found) for each, found in reversed(ordered)}
        best = sorted(first.values(), key=lambda pair: (-pair[1].miou_percent, pair[0].candidate.key))
        rows = [
            Row(index + 1, each, found, why(self.question, each, found))
            for index, (each, found) in enumerate(best[:_NUM_ASIDE])
        ]
        return Aside(len(pool), tuple(rows))

    def price(self, pool: Sequence[Priced], ranked: Sequence[Ranked], binding: Budget) -> Price | None:
        """What the best under twice the binding budget is predicted to gain over the best under the budget itself."""
        doubled = held.relaxed(binding)
        looser = replace(
            self.question, budgets=tuple(doubled if each is binding else each for each in self.question.budgets)
        )
        best = max(ranked, key=lambda row: row.prediction.miou_percent)
        wider, _ = self.split(_affordable(looser, pool)[0])
        if not wider:
            return None
        then, found = max(wider, key=lambda pair: (pair[1].miou_percent, pair[0] is best.priced))
        pair = self.model.draws(self.subjects([best.priced, then]))
        gain = sorted((pair[:, 1] - pair[:, 0]).tolist())
        ends = gain[len(gain) // 10], gain[len(gain) - 1 - len(gain) // 10]
        return Price(doubled, then.candidate, found.miou_percent - best.prediction.miou_percent, ends)


def _is_supported(prediction: Prediction) -> bool:
    support = prediction.support
    return support.own_runs + support.published_luma + support.other_heads > 0


def _chooser_notes(chooser: Chooser | None) -> list[str]:
    return [f"ordered by {chooser.title}, not by the model: {chooser.reason}"] if chooser else []


def _notes(question: Question, pool: Sequence[Priced]) -> list[str]:
    notes = []
    if question.head != "luma":
        notes.append(
            f"costs are with head {question.head}; backbones that it cannot be attached to are left out"
        )
    if "macs" in question.kinds:
        notes.append(f"{convention_caption(question.convention)}; whole segmenter on one square crop")
    for kind in question.kinds:
        uncounted = sum(kind not in each.costs for each in pool)
        if uncounted:
            reason = "only known as a lower bound" if kind in held.EXACT else "not known on this device"
            notes.append(f"{uncounted} candidates left out: their {held.TITLES[kind]} are {reason}")
    return notes
