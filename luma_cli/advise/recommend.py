"""`luma recommend`: which backbone, pretraining and resolution to use under a budget, and how certain the choice is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luma_cli.accuracy.model import LearnedModel, RuleChooser, chooser, load_model
from luma_cli.accuracy.sightings import AccuracyModel, Effect, Prediction
from luma_cli.advise.candidates import Candidate, scale_note
from luma_cli.advise.costs import check_known
from luma_cli.advise.fronts import (
    NUM_DRAWS,
    REFERENCE_MIOU,
    TIE_MIOU,
    Floats,
    best_chance,
    draw_places,
    knees,
    on_front_chances,
    place,
    ties,
)
from luma_cli.advise.gain import worthiest
from luma_cli.advise.question import (
    EXACT,
    PROFILED,
    TITLES,
    Objective,
    Priced,
    Question,
    Standing,
    binding,
    cost_note,
    expense,
    explain,
    relaxed,
    slack,
    standing,
    tightest,
    unmet,
    worst,
)
from luma_cli.advise.setting import Fit, Judged, comparable, load, predicted, settled
from luma_cli.catalogue.heads import HeadName
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_runs import OwnRow
from luma_cli.to_json import to_json
from luma_cli.units import FLOORS, Budget, FlopConvention, parse_budget

if TYPE_CHECKING:
    from luma_cli.speed.model import SpeedModel


NUM_MEASURED = 5
_NUM_ASIDE, _NUM_NEAREST = 3, 5
# On the front in less than one draw of twenty: dominated by all that is known, so not worth a row.
_ON_FRONT = 0.05


@dataclass(frozen=True, slots=True)
class Reasons:
    """Effects on a prediction in mIoU points, largest first, and the nearest rows of the evidence."""

    effects: tuple[Effect, ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Recommended:
    """One candidate of the answer.

    rank: from 1. best: share of draws in which it meets the objective best. on_front: share in which nothing cheaper is
    as good; both None for a candidate that is not ranked. tie: it could as well be first. why: one line.
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
        """The backbone with its pretraining and resolution."""
        return self.priced.candidate

    def to_json(self, question: Question) -> dict[str, Any]:
        """The candidate, its predicted accuracy, its chances, and its cost under every budget."""
        limits = {budget.kind: budget for budget in question.budgets}
        costs: dict[str, Any] = dict.fromkeys(question.kinds)
        for kind in question.kinds:
            if kind not in self.priced.costs:
                continue
            limit = limits.get(kind)
            bound = {"limit": limit.limit, "slack": slack(self.priced, limit)} if limit else {}
            costs[kind] = {**self.priced.costs[kind].to_json(), **bound}
        return {
            "rank": self.rank,
            **self.candidate.to_json(),
            **self.prediction.to_json(),
            "p_best": self.best,
            "p_on_front": self.on_front,
            "tie": self.tie,
            "costs": costs,
            "why": self.why,
            "effects": self.reasons and to_json(self.reasons.effects),
            "nearest": self.reasons and to_json(self.reasons.evidence),
        }


@dataclass(frozen=True, slots=True)
class Price:
    """What twice the binding budget (half of a rate) buys: a candidate, and mIoU points with their 80 % interval."""

    budget: Budget
    candidate: Candidate
    points: float
    interval_80: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """The relaxed budget, the candidate and the gain."""
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
    rows: tuple[Recommended, ...] = ()

    def to_json(self, question: Question) -> dict[str, Any]:
        """The count and the rows."""
        return {"count": self.count, "examples": [row.to_json(question) for row in self.rows]}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer to one question.

    rows: the winner first; empty when no candidate that surely fits has evidence. scale_note: which head's scale the
    mIoU is on. chosen_by: `model`, or the rule that chooses better on this dataset. binding: the budget with least
    slack for the winner. num_ranked: candidates within every budget that have evidence. may_exceed: the predicted cost
    fits, the expensive end of its 80 % interval does not. unsupported: within budget, without evidence. next_run: the
    `luma train` line of most gain, with the reason; empty when none was looked for. measured_here: the user's own runs,
    with reasons where a run is not comparable.
    """

    question: Question
    rows: tuple[Recommended, ...]
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


def recommend(
    budgets: str | Sequence[str | Budget] = (),
    *,
    dataset: str = "ade20k",
    objective: Objective = "miou",
    resolutions: Sequence[int] = (),
    families: Sequence[str] = (),
    pretrainings: Sequence[str] = (),
    licences: Sequence[str] = (),
    top: int = 3,
    head: HeadName = "luma",
    device: str | None = None,
    convention: FlopConvention = "mac",
    database: Path | None = None,
    with_reasons: bool = False,
    fit: Fit = load_model,
) -> Recommendation:
    """The best backbone, pretraining and resolution that surely meet every budget.

    budgets: as `200gflops` or parsed; of several in one unit the tightest binds. device: for budgets in time, rate,
    memory, energy or GPU-hours: one that was measured, or one whose throughput ships; the only measured one when None.
    database: $LUMA_DB or the data folder when None; where no budget needs it, a store that cannot be read becomes a
    note. with_reasons: effects and nearest evidence for each row. fit: learns accuracy from the evidence. Raises
    NoAnswer, UsageError, StoreError.

    >>> recommend("200gflops").rows[0].candidate.macs <= 200e9  # doctest: +SKIP
    True
    """
    given = [budgets] if isinstance(budgets, str) else budgets
    question = Question(
        dataset,
        tightest(parse_budget(each, convention) if isinstance(each, str) else each for each in given),
        objective,
        tuple(resolutions),
        frozenset(families),
        frozenset(pretrainings),
        frozenset(licences),
        convention,
        device,
        head,
    )
    return answer(question, top=top, database=database, with_reasons=with_reasons, fit=fit)


def answer(
    question: Question, *, top: int = 3, database: Path | None = None, with_reasons: bool = False, fit: Fit = load_model
) -> Recommendation:
    """The answer to a question; the other arguments and the errors are those of `recommend`."""
    setting = load(question, (*question.kinds, "macs"), database, fit)
    learned = setting.model if isinstance(setting.model, LearnedModel) else None
    found = recommendation(
        question,
        setting.pool,
        setting.model,
        evidence=setting.evidence,
        own=setting.own,
        speed=setting.speed,
        # A simple rule replaces the learned model where the audit shows that it chooses better.
        chooser=chooser(learned, question.dataset, setting.evidence) if learned else None,
        top=top,
        with_reasons=with_reasons,
    )
    return replace(found, notes=(*found.notes, *setting.notes))


def recommendation(
    question: Question,
    pool: Iterable[Priced],
    model: AccuracyModel,
    *,
    evidence: Iterable[Evidence] = (),
    own: Sequence[OwnRow] = (),
    speed: SpeedModel | None = None,
    chooser: RuleChooser | None = None,
    top: int = 3,
    with_reasons: bool = False,
) -> Recommendation:
    """The candidates that surely meet every budget, best first; the order of `pool` does not matter.

    pool: candidates with the question's kinds of cost. evidence: what `model` was fitted to. own: the user's runs as
    judged. speed: of the device, for errors. chooser: a rule that ranks instead of the model. Raises NoAnswer, naming
    the nearest candidate, when none can meet the budgets; UsageError for a `top` below 1.
    """
    if top < 1:
        raise UsageError(f"top is {top}, expected at least 1")
    priced = sorted(pool, key=lambda each: each.candidate.key)
    within, may_exceed = _that_are("within", question, priced), _that_are("may exceed", question, priced)
    if not within and not may_exceed:
        if speed is not None:
            check_known(question, priced, speed)
        raise NoAnswer(unmet(question, priced))
    desk = _Desk(question, model, {row.id: row for row in evidence} if with_reasons else None)
    judged = desk.judge(within)
    supported = [each for each in judged if each.supported]
    found = desk.rank(supported, chooser)
    rows = tuple(desk.explained(row, found[0]) for row in found[:top])
    bound = binding(found[0].priced, question.budgets) if found else None
    return Recommendation(
        question=question,
        rows=rows,
        scale_note=scale_note(model, question.head),
        num_within_budget=len(within),
        num_ranked=len(supported),
        num_ties=sum(each.tie for each in found),
        chosen_by=chooser.title if chooser else "model",
        binding=bound,
        price=desk.price(priced, found, bound) if bound and question.objective == "miou" else None,
        may_exceed=desk.aside(desk.judge(may_exceed)),
        unsupported=desk.aside([each for each in judged if not each.supported]),
        notes=tuple(_notes(question, priced, rows, chooser)),
        next_run=worthiest(question, judged, model, comparable(own)) if judged else "",
        measured_here=settled(own, within, priced, question),
    )


def _that_are(wanted: Standing, question: Question, pool: Iterable[Priced]) -> list[Priced]:
    """The candidates that stand so under the budgets and have a known cost on the front's axis."""
    known = (each for each in pool if not math.isnan(place(each, question.axis)))
    return [each for each in known if standing(each, question.budgets) == wanted]


@dataclass(frozen=True, slots=True)
class _Desk:
    """A question with the model that answers it. evidence: by id, None without reasons. kept: predictions so far."""

    question: Question
    model: AccuracyModel
    evidence: Mapping[str, Evidence] | None
    kept: dict[tuple[str, int], Judged] = field(default_factory=dict)

    def judge(self, pool: Sequence[Priced]) -> list[Judged]:
        """The pool with subjects and predictions, in order."""
        new = {each.candidate.run_key: each for each in pool if each.candidate.run_key not in self.kept}
        self.kept.update(zip(new, predicted(self.question, new.values(), self.model), strict=True))
        return [self.kept[each.candidate.run_key]._replace(priced=each) for each in pool]

    def rank(self, pool: Sequence[Judged], chooser: RuleChooser | None) -> list[Recommended]:
        """The winner, its ties (not extrapolated before extrapolated, then cheapest first), the likely front."""
        if not pool:
            return []
        question, priced, subjects = self.question, [each.priced for each in pool], [each.subject for each in pool]
        draws = self.model.draws(subjects, NUM_DRAWS)
        values, best, tolerance = _objective(question, pool, draws)
        if chooser:
            values, tolerance = list(chooser.scores(subjects, [each.cost("macs") for each in priced])), 0.0
        front = on_front_chances(priced, question.axis, draws)
        expenses = [(each.prediction.extrapolated, *expense(each.priced, question.budgets)) for each in pool]

        def order(at: int) -> tuple[object, ...]:
            return -values[at], expenses[at], priced[at].candidate.key

        leader = min(range(len(pool)), key=order)
        # A candidate that no draw puts on the front may not tie, or adding it would change the winner.
        known = [value if at == leader or front[at] > 0 else math.nan for at, value in enumerate(values)]
        tied = ties(known, expenses, best.tolist(), tolerance)
        rest = sorted((at for at in range(len(pool)) if front[at] >= _ON_FRONT and at not in tied), key=order)

        def row(rank: int, at: int) -> Recommended:
            is_tie = len(tied) > 1 and at in tied
            return Recommended(rank, priced[at], pool[at].prediction, "", float(best[at]), front[at], is_tie)

        return [row(rank, at) for rank, at in enumerate((*tied, *rest), 1)]

    def explained(self, row: Recommended, first: Recommended) -> Recommended:
        """The row with its reasons, compared with the first one."""
        more = [] if row is first else [_compared(self.question, row, first)]
        line = _line(self.question, row.priced, row.prediction, *more)
        return replace(row, why=line, reasons=self._reasons(row))

    def _reasons(self, row: Recommended) -> Reasons | None:
        if self.evidence is None:
            return None
        (judged,) = self.judge([row.priced])
        nearest = [self.evidence[each] for each in row.prediction.support.ids if each in self.evidence]
        return Reasons(tuple(self.model.effects(judged.subject)), tuple(nearest[:_NUM_NEAREST]))

    def aside(self, judged: Sequence[Judged]) -> Aside:
        """Their number, and the highest predictions among them, one resolution of each checkpoint."""
        first: dict[str, Judged] = {}
        for each in sorted(judged, key=lambda each: (-each.miou, each.priced.candidate.key)):
            first.setdefault(each.priced.candidate.timm_name, each)
        rows = [
            Recommended(index + 1, each.priced, each.prediction, _line(self.question, each.priced, each.prediction))
            for index, each in enumerate(list(first.values())[:_NUM_ASIDE])
        ]
        return Aside(len(judged), tuple(rows))

    def price(self, pool: Sequence[Priced], ranked: Sequence[Recommended], bound: Budget) -> Price | None:
        """The predicted gain of the best under twice the binding budget over the best under the budget."""
        doubled = relaxed(bound)
        looser = replace(
            self.question, budgets=tuple(doubled if each is bound else each for each in self.question.budgets)
        )
        (best,) = self.judge([max(ranked, key=lambda row: row.prediction.miou_percent).priced])
        wider = [each for each in self.judge(_that_are("within", looser, pool)) if each.supported]
        then = max(wider, key=lambda each: (each.miou, each.priced is best.priced), default=None)
        if then is None:
            return None
        drawn = self.model.draws([best.subject, then.subject], NUM_DRAWS)
        gain = sorted((drawn[:, 1] - drawn[:, 0]).tolist())
        ends = gain[len(gain) // 10], gain[len(gain) - 1 - len(gain) // 10]
        return Price(doubled, then.priced.candidate, then.miou - best.miou, ends)


def _objective(question: Question, pool: Sequence[Judged], draws: Floats) -> tuple[list[float], Floats, float]:
    """The value of each candidate, its chance to have the best one, and the difference within which values tie."""
    mious = [each.miou for each in pool]
    if question.objective == "miou":
        return mious, best_chance(draws), TIE_MIOU
    places = [place(each.priced, question.axis) for each in pool]
    if question.objective == "miou-per-ms":
        values = [miou / ms for miou, ms in zip(mious, places, strict=True)]
        uncertain = draw_places([each.priced for each in pool], question.axis, len(draws))
        return values, best_chance(draws / uncertain), TIE_MIOU / places[values.index(max(values))]
    least = REFERENCE_MIOU.get(question.dataset, 0.0)
    votes = np.bincount([each for each in knees(places, draws, least) if each >= 0], minlength=len(mious))
    if not votes.any():
        return mious, best_chance(draws), TIE_MIOU
    share = votes / len(draws)
    return share.tolist(), share, 0.0


def _notes(
    question: Question, pool: Sequence[Priced], rows: Sequence[Recommended], chooser: RuleChooser | None
) -> list[str]:
    notes = [f"ranked by {chooser.title} instead of the model: {chooser.reason}"] if chooser else []
    if question.head == "none":
        notes.append("costs are of the backbone alone; mIoU is with the LUMA head, whose costs are extra")
    elif question.head != "luma":
        notes.append(f"costs include head {question.head}; backbones that do not support it are left out")
    for kind in question.kinds:
        uncounted = sum(kind not in each.costs for each in pool)
        if uncounted:
            reason = "known only as a lower bound" if kind in EXACT else "not known on this device; luma profile NAME"
            notes.append(f"{uncounted} candidates left out: {TITLES[kind]} {reason}")
        notes += cost_note(kind, [row.priced for row in rows])
    return notes


def _line(question: Question, priced: Priced, prediction: Prediction, *more: str) -> str:
    """The reason of a row: its evidence, what speaks against it, every cost that was asked for, and more."""
    flag = f"extrapolated: {prediction.reason or 'outside the evidence'}" if prediction.extrapolated else ""
    bound = {budget.kind: budget for budget in question.budgets}
    costs = []
    for kind in question.kinds:
        if (quantity := priced.costs.get(kind)) is not None:
            room = f", {_room(priced, bound[kind])}" if kind in bound else ""
            costs.append(explain(quantity, question.convention) + room)
    return "; ".join(filter(None, (prediction.support.line, flag, *costs, *more)))


def _room(priced: Priced, budget: Budget) -> str:
    left = slack(priced, budget)
    if left < 0:
        return f"may not meet {budget.text}"
    least = "" if worst(priced.costs[budget.kind], budget.is_floor) == priced.cost(budget.kind) else "at least "
    return f"{least}{left:.0%} above {budget.text}" if budget.is_floor else f"{least}{left:.0%} of {budget.text} left"


def _compared(question: Question, row: Recommended, first: Recommended) -> str:
    """How far from the first row's mIoU, and at what share of its cost on the front's axis."""
    mine, theirs = place(row.priced, question.axis), place(first.priced, question.axis)
    ahead = row.prediction.miou_percent - first.prediction.miou_percent
    gap = f"{abs(ahead):.1f} mIoU {'above' if ahead > 0 else 'behind'} the first"
    # `place` is better small, so a rate is compared as the time per image behind it.
    axis = "time per image" if question.axis in FLOORS else TITLES[question.axis]
    ratio = "equal" if f"{mine / theirs:.2g}" in ("1", "0.99") else f"{mine / theirs:.2g}x its"
    return " ".join(filter(None, ("ties with the first," if row.tie else "", gap, f"at {ratio} {axis}")))


def shortlist(answer: Recommendation, count: int = NUM_MEASURED) -> list[Candidate]:
    """The candidates to measure before the answer is relied on: highest predicted mIoU first, a cost only predicted.

    They are within budget or may be. One of each architecture and size, as speed does not depend on the weights.
    """
    rows = sorted(
        (*answer.rows, *answer.may_exceed.rows), key=lambda row: (-row.prediction.miou_percent, row.candidate.key)
    )
    kinds = [kind for kind in answer.question.kinds if kind in PROFILED]
    found: dict[tuple[str, int], Candidate] = {}
    for row in rows:
        if any(row.priced.costs[kind].origin != "measured" for kind in kinds):
            found.setdefault((row.candidate.architecture, row.candidate.resolution), row.candidate)
    return list(found.values())[:count]
