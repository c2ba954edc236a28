"""`luma recommend`: which backbone, pretraining and resolution to use under a budget, and how certain the choice is.

Evidence goes before guesses. A candidate may be recommended when fine-tuned results of its weights or of its series
span its size and crop; the evidence is direct when they are of its weights, or of its size, series and objective. One
is out of the question when some other with such evidence is better in more than OUT_OF_THE_QUESTION of the joint draws.
The first row is, of those left with direct evidence, an own run before published results, then the cheapest. One with
results of its series alone takes that place only where it is better in more than CLEARLY_BETTER of the draws: else a
wide guess would rule out a narrow measurement of the same mIoU, and stay itself because it is wide. So a wider budget
brings candidates in and rules others out. The best candidate outside the evidence is named beside the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import AccuracyModel, Effect, Prediction
from luma_cli.advise.candidates import Candidate, scale_note
from luma_cli.advise.costs import check_known, usual_recipe
from luma_cli.advise.fronts import (
    NUM_DRAWS,
    REFERENCE_MIOU,
    Floats,
    best_chance,
    draw_places,
    knees,
    place,
)
from luma_cli.advise.gain import command, worthiest
from luma_cli.advise.question import (
    DEVICELESS,
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
from luma_cli.advise.setting import Fit, Judged, comparable, load, predicted, settled, tier
from luma_cli.catalogue.heads import HeadName
from luma_cli.catalogue.licences import expanded, is_commercial
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_runs import OwnRow
from luma_cli.to_json import to_json
from luma_cli.units import FLOORS, Budget, FlopConvention, parse_budget

if TYPE_CHECKING:
    from luma_cli.speed.model import SpeedModel


NUM_ROWS = 5
_NUM_ASIDE, _NUM_NEAREST = 3, 5
# P(A > B) from 0.35 to 0.65 is a tie: A and B could as well change places.
OUT_OF_THE_QUESTION = 0.65
TIED = 1 - OUT_OF_THE_QUESTION
# What it takes to prefer a size that nobody measured to one that somebody did: the draws know the spread of a series,
# but not whether its next size keeps to it.
CLEARLY_BETTER = 0.9
# Only candidates with the highest expectations rule others out: the rest are ruled out by these as well.
_NUM_RIVALS = 60
# Of equally good candidates the one with the lower number is chosen: published results of the weights and of the size
# count alike.
_DIRECTNESS = {"own run": 0, "same weights": 1, "same size": 1, "same series": 2, "none": 3}


@dataclass(frozen=True, slots=True)
class Reasons:
    """Effects on a prediction in mIoU points, largest first, and the nearest rows of the evidence."""

    effects: tuple[Effect, ...]
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True, slots=True)
class Recommended:
    """One candidate of the answer.

    rank: from 1. best: share of draws in which no other direct candidate within budget is better, None for one that is
    not ranked. better: share of draws in which it is better than the first. windows: per image. why: one line.
    """

    rank: int
    priced: Priced
    prediction: Prediction
    windows: float = 1.0
    why: str = ""
    best: float | None = None
    better: float | None = None
    reasons: Reasons | None = None

    @property
    def candidate(self) -> Candidate:
        """The backbone with its pretraining and resolution."""
        return self.priced.candidate

    @property
    def tie(self) -> bool:
        """Whether it could as well be first."""
        return self.better is not None and self.better >= TIED

    @property
    def likely_better(self) -> bool:
        """Whether it is expected to be better than the first, which has more direct evidence."""
        return self.better is not None and self.better > OUT_OF_THE_QUESTION

    def to_json(self, question: Question) -> dict[str, Any]:
        """The candidate, its predicted accuracy, its chances, and its cost under every budget."""
        limits = {budget.kind: budget for budget in question.budgets}
        costs: dict[str, Any] = dict.fromkeys(question.kinds)
        for kind in question.kinds:
            if kind not in self.priced.costs:
                continue
            limit = limits.get(kind)
            bound = {"limit": limit.limit, "left": slack(self.priced, limit)} if limit else {}
            costs[kind] = {**self.priced.costs[kind].to_json(), **bound}
        return {
            "rank": self.rank,
            **self.candidate.to_json(),
            "commercial": is_commercial(self.candidate.licence),
            **self.prediction.to_json(),
            "standing": self.prediction.support.standing,
            "p_best": self.best,
            "p_better_than_first": self.better,
            "windows_per_image": self.windows,
            "macs_per_image": None if self.candidate.macs is None else self.candidate.macs * self.windows,
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

    rows: distinct weights, the first choice first; empty when no candidate that surely fits has evidence. untested: the
    most promising candidate without direct evidence, None where it hardly could be better than the first. scale_note:
    which head's scale the mIoU is on. binding: the budget with least room for the first. num_direct: candidates within
    every budget with direct evidence. may_exceed: the predicted cost fits, the expensive end of its 80% interval does
    not. unsupported: within budget, without any evidence. command: the `luma train` line of the first. next_run: the
    one of most gain, with the reason; empty when none was looked for. measured_here: the user's own runs on this
    dataset, with reasons where one is not comparable.
    """

    question: Question
    rows: tuple[Recommended, ...]
    scale_note: str
    num_within_budget: int
    num_direct: int
    untested: Recommended | None = None
    binding: Budget | None = None
    price: Price | None = None
    may_exceed: Aside = Aside()
    unsupported: Aside = Aside()
    command: str = ""
    next_run: str = ""
    notes: tuple[str, ...] = ()
    measured_here: tuple[OwnRow, ...] = ()

    @property
    def promising(self) -> tuple[Recommended, ...]:
        """What a measurement might put first: it may exceed a budget, and is expected to be better."""
        if not any(budget.kind in PROFILED for budget in self.question.budgets):
            return ()
        if not self.rows:
            return self.may_exceed.rows
        least = self.rows[0].prediction.miou_percent
        return tuple(row for row in self.may_exceed.rows if row.prediction.miou_percent > least)

    def to_json(self) -> dict[str, Any]:
        """Schema 3. Numbers that are not known are null; mIoU in percent, costs in the kind's own unit."""
        question = self.question
        return {
            "schema": 3,
            "dataset": question.dataset,
            "head": question.head,
            "objective": question.objective,
            "device": question.device,
            "image": question.image and list(question.image),
            "budgets": [{"text": each.text, "kind": each.kind, "limit": each.limit} for each in question.budgets],
            "scale": self.scale_note,
            "recommendations": [row.to_json(question) for row in self.rows],
            "untested": self.untested and self.untested.to_json(question),
            "within_budget": self.num_within_budget,
            "with_direct_evidence": self.num_direct,
            "binding_budget": self.binding.text if self.binding else None,
            "per_doubling": self.price.to_json() if self.price else None,
            "may_exceed": self.may_exceed.to_json(question),
            "without_evidence": self.unsupported.to_json(question),
            "command": self.command or None,
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
    top: int = NUM_ROWS,
    head: HeadName = "luma",
    device: str | None = None,
    image: tuple[int, int] | None = None,
    convention: FlopConvention = "mac",
    database: Path | None = None,
    with_reasons: bool = False,
    fit: Fit = load_model,
) -> Recommendation:
    """The best backbone, pretraining and resolution that surely meet every budget.

    budgets: as `200gflops` or parsed; of several in one unit the tightest binds. device: for budgets in time, rate,
    memory, energy or GPU-hours: one that was measured, or one whose throughput ships; the only measured one when None.
    image: height and width of the images, in pixels, for costs per image. licences: names, `commercial`, `permissive`.
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
        expanded(licences),
        convention,
        device,
        head,
        image,
    )
    return answer(question, top=top, database=database, with_reasons=with_reasons, fit=fit)


def answer(
    question: Question,
    *,
    top: int = NUM_ROWS,
    database: Path | None = None,
    with_reasons: bool = False,
    fit: Fit = load_model,
) -> Recommendation:
    """The answer to a question; the other arguments and the errors are those of `recommend`."""
    setting = load(question, (*question.kinds, "macs"), database, fit)
    found = recommendation(
        question,
        setting.pool,
        setting.model,
        evidence=setting.evidence,
        own=setting.own,
        speed=setting.speed,
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
    top: int = NUM_ROWS,
    with_reasons: bool = False,
    with_next_run: bool = True,
) -> Recommendation:
    """The candidates that surely meet every budget, best first; the order of `pool` does not matter.

    pool: candidates with the question's kinds of cost. evidence: what `model` was fitted to. own: the user's runs as
    judged. speed: of the device, for errors. Raises NoAnswer, naming the nearest candidate, when none can meet the
    budgets; UsageError for a `top` below 1.
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
    rows, untested = desk.choose(judged, top)
    bound = binding(rows[0].priced, question.budgets) if rows else None
    return Recommendation(
        question=question,
        rows=rows,
        scale_note=scale_note(model, question.head),
        num_within_budget=len(within),
        num_direct=sum(tier(each) == 0 for each in judged),
        untested=untested,
        binding=bound,
        price=desk.price(priced, judged, bound) if bound and question.objective == "miou" else None,
        may_exceed=desk.aside(desk.judge(may_exceed)),
        unsupported=desk.aside([each for each in judged if not each.supported]),
        notes=tuple(_notes(question, priced, rows)),
        command=training_command(question, rows[0].candidate) if rows else "",
        next_run=worthiest(question, judged, model, comparable(own)) if judged and with_next_run else "",
        measured_here=settled(own, within, priced, question),
    )


def training_command(question: Question, candidate: Candidate) -> str:
    """The `luma train` line of a candidate with the question's head."""
    head = "luma" if question.head == "none" else question.head  # nothing is trained without one
    return command(candidate, question.dataset, usual_recipe(question.dataset, head).name, head)


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

    def choose(self, pool: Sequence[Judged], top: int) -> tuple[tuple[Recommended, ...], Recommended | None]:
        """The rows, of distinct weights within the evidence, and the best guess outside of it."""
        ranked = self._ranked([each for each in pool if tier(each) < 2])
        guesses = self._ranked([each for each in pool if tier(each) == 2])
        if not ranked:
            ranked, guesses = guesses, []
        if not ranked:
            return (), None
        values, drawn = _objective(self.question, ranked, self._draws(ranked))
        best = np.array(values) / NUM_DRAWS if drawn is None else best_chance(drawn)
        chances = dict(zip((each.priced.candidate.key for each in ranked), best.tolist(), strict=True))
        shown = [*_distinct(ranked)[:top], *guesses[:1]]
        num_rows = len(shown) - len(guesses[:1])
        rows = [
            Recommended(
                rank,
                each.priced,
                each.prediction,
                self.question.windows(each.priced.candidate.resolution),
                best=chances.get(each.priced.candidate.key),
                better=None if rank == 1 else chance,
            )
            for rank, (each, chance) in enumerate(zip(shown, self._better(shown), strict=True), 1)
        ]
        explained = [self.explained(row, rows[0]) for row in rows]
        guess = explained[-1] if guesses and explained[-1].tie else None
        return tuple(explained[:num_rows]), guess

    def _ranked(self, pool: Sequence[Judged]) -> list[Judged]:
        """The first choice, then the rest by expectation."""
        if not pool:
            return []
        values, drawn = _objective(self.question, pool, self._draws(pool))
        costs = [expense(each.priced, self.question.budgets) for each in pool]
        direct = [_DIRECTNESS[each.prediction.support.standing] for each in pool]
        keys = [each.priced.candidate.key for each in pool]
        order = sorted(range(len(pool)), key=lambda at: (-values[at], costs[at], keys[at]))
        if drawn is None:
            return [pool[at] for at in order]

        def choice(among: Sequence[int]) -> int:
            rivals = drawn[:, among[:_NUM_RIVALS]]
            left = [at for at in among if np.max((rivals > drawn[:, [at]]).mean(axis=0)) <= OUT_OF_THE_QUESTION]
            return min(left or among[:1], key=lambda at: (direct[at], costs[at], keys[at]))

        measured = [at for at in order if direct[at] <= _DIRECTNESS["same size"]]
        first = choice(measured or order)
        if measured:
            rest = [at for at in order if direct[at] > _DIRECTNESS["same size"]]
            clear = (drawn[:, rest] > drawn[:, [first]]).mean(axis=0) > CLEARLY_BETTER
            if clear.any():
                first = choice([at for at, is_clear in zip(rest, clear, strict=True) if is_clear])
        return [pool[first], *(pool[at] for at in order if at != first)]

    def _draws(self, pool: Sequence[Judged]) -> Floats:
        return np.asarray(self.model.draws([each.subject for each in pool], NUM_DRAWS))

    def _better(self, pool: Sequence[Judged]) -> list[float]:
        """The share of joint draws in which each is better than the first."""
        _, drawn = _objective(self.question, pool, self._draws(pool))
        drawn = self._draws(pool) if drawn is None else drawn
        return [float(share) for share in (drawn > drawn[:, :1]).mean(axis=0)]

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
            Recommended(
                index + 1,
                each.priced,
                each.prediction,
                self.question.windows(each.priced.candidate.resolution),
                _line(self.question, each.priced, each.prediction),
            )
            for index, each in enumerate(list(first.values())[:_NUM_ASIDE])
        ]
        return Aside(len(judged), tuple(rows))

    def price(self, pool: Sequence[Priced], within: Sequence[Judged], bound: Budget) -> Price | None:
        """The predicted gain of the best under twice the binding budget over the best under the budget."""
        doubled = relaxed(bound)
        looser = replace(
            self.question, budgets=tuple(doubled if each is bound else each for each in self.question.budgets)
        )
        least = min(tier(each) for each in within)
        best = max((each for each in within if tier(each) <= max(1, least)), key=lambda each: each.miou)
        wider = [each for each in self.judge(_that_are("within", looser, pool)) if tier(each) <= max(1, least)]
        then = max(wider, key=lambda each: (each.miou, each.priced is best.priced), default=None)
        if then is None:
            return None
        drawn = self.model.draws([best.subject, then.subject], NUM_DRAWS)
        gain = sorted((drawn[:, 1] - drawn[:, 0]).tolist())
        ends = gain[len(gain) // 10], gain[len(gain) - 1 - len(gain) // 10]
        return Price(doubled, then.priced.candidate, then.miou - best.miou, ends)


def _distinct(pool: Sequence[Judged]) -> list[Judged]:
    """The first size of each checkpoint."""
    found: dict[str, Judged] = {}
    for each in pool:
        found.setdefault(each.priced.candidate.timm_name, each)
    return list(found.values())


def _objective(question: Question, pool: Sequence[Judged], draws: Floats) -> tuple[list[float], Floats | None]:
    """The value of each candidate, and draws [S, C] of it; None for the knee, which is one of a front, not better."""
    mious = [each.miou for each in pool]
    if question.objective == "miou":
        return mious, draws
    places = [place(each.priced, question.axis) for each in pool]
    if question.objective == "miou-per-ms":
        values = [miou / ms for miou, ms in zip(mious, places, strict=True)]
        return values, draws / draw_places([each.priced for each in pool], question.axis, len(draws))
    least = REFERENCE_MIOU.get(question.dataset, 0.0)
    votes = np.bincount([each for each in knees(places, draws, least) if each >= 0], minlength=len(mious))
    return (votes.tolist(), None) if votes.any() else (mious, draws)


def _notes(question: Question, pool: Sequence[Priced], rows: Sequence[Recommended]) -> list[str]:
    notes = []
    if question.head == "none":
        notes.append("costs are of the backbone alone; mIoU is with the LUMA head, whose costs are extra")
    elif question.head != "luma":
        notes.append(f"costs include head {question.head}; backbones that do not support it are left out")
    for kind in question.kinds:
        uncounted = sum(kind not in each.costs for each in pool)
        if uncounted:
            reason = (
                "known only as a lower bound" if kind in DEVICELESS else "not known on this device; luma profile NAME"
            )
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


def first_choices(
    question: Question, pool: Sequence[Priced], model: AccuracyModel, budgets: Sequence[Budget]
) -> list[Recommended | None]:
    """The first row of the answer under each budget alone, in order; None where nothing fits or has results."""
    kept: dict[tuple[str, int], Judged] = {}
    found = []
    for budget in budgets:
        asked = replace(question, budgets=(budget,))
        desk = _Desk(asked, model, None, kept)
        rows, _ = desk.choose(desk.judge(_that_are("within", asked, pool)), 1)
        found.append(rows[0] if rows else None)
    return found


def shortlist(answer: Recommendation) -> list[Candidate]:
    """The shown candidates with an asked cost that was not measured; where none is shown, those that may fit.

    One of each architecture and size, as speed does not depend on the weights.
    """
    kinds = [kind for kind in answer.question.kinds if kind in PROFILED]
    found: dict[tuple[str, int], Candidate] = {}
    for row in (*answer.rows, *answer.promising):
        if any(row.priced.costs[kind].origin != "measured" for kind in kinds):
            found.setdefault((row.candidate.architecture, row.candidate.resolution), row.candidate)
    return list(found.values())
