"""`luma recommend`: which backbone, pretraining and resolution under a budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from luma_cli.accuracy.model import LearnedModel, RuleChooser, chooser, load_model
from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.advise.answer import Aside, Price, Reasons, Recommendation, Row, compared, why
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
    expense,
    relaxed,
    standing,
    tightest,
    unmet,
)
from luma_cli.advise.setting import Fit, Judged, Setting, comparable, load, predicted, settled
from luma_cli.catalogue.heads import HeadName
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.evidence.evidence import Evidence
from luma_cli.evidence.own_runs import OwnRow
from luma_cli.units import Budget, FlopConvention, parse_budget

if TYPE_CHECKING:
    from luma_cli.speed.model import SpeedModel


NUM_MEASURED = 5
_NUM_ASIDE, _NUM_NEAREST = 3, 5
# Less often on the front than in one draw of twenty: dominated for all that is known, and not worth a row.
_ON_FRONT = 0.05


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

    budgets: as `200gflops` or parsed; of several in one unit the tightest binds. objective: the highest mIoU, the
    highest mIoU per ms, or the knee of the front. device: of budgets in time, rate, memory, energy or GPU-hours: one
    that was measured, or one that ships; the only measured one when None. database: the store with the user's own runs
    and measurements; $LUMA_DB or the data folder when None. A store that cannot be read is only an error where a budget
    needs it; else a note says so. with_reasons: effects and nearest evidence for each row. fit: learns accuracy from
    published and imported results and finished own runs on official data. Raises NoAnswer, UsageError, StoreError.

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
    setting = load(question, (*question.kinds, "macs"), database, fit)
    found = recommendation(
        question,
        setting.pool,
        setting.model,
        evidence=setting.evidence,
        own=setting.own,
        speed=setting.speed,
        chooser=_chooser(setting),
        top=top,
        with_reasons=with_reasons,
    )
    return replace(found, notes=(*found.notes, *setting.notes))


def _chooser(setting: Setting) -> RuleChooser | None:
    """The simple rule that beats the learned model on this dataset, if the audit found one."""
    if not isinstance(setting.model, LearnedModel):
        return None
    return chooser(setting.model, setting.question.dataset, setting.evidence)


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
    within, may_exceed = _that_are("within", question, priced), _that_are("may exceed", question, priced)
    if not within and not may_exceed:
        if speed is not None:
            check_known(question, priced, speed)
        raise NoAnswer(unmet(question, priced))
    desk = _Desk(question, model, {row.id: row for row in evidence} if with_reasons else None)
    judged = desk.judge(within)
    supported = [each for each in judged if each.supported]
    found = desk.rank(supported, chooser)
    rows = desk.explained(found[:top])
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
        notes=(*_notes(question, priced, chooser), *_said_of_costs(question, rows)),
        next_run=worthiest(question, judged, model, comparable(own)) if judged else "",
        measured_here=settled(own, within, priced, question),
    )


def _that_are(wanted: Standing, question: Question, pool: Iterable[Priced]) -> list[Priced]:
    """The candidates that stand so under the budgets and have a known cost on the front's axis."""
    known = (each for each in pool if not math.isnan(place(each, question.axis)))
    return [each for each in known if standing(each, question.budgets) == wanted]


@dataclass(frozen=True, slots=True)
class _Desk:
    """A question and the model that answers it; what was predicted once is kept by checkpoint and size.

    evidence: by its id, None where no reasons are asked for.
    """

    question: Question
    model: AccuracyModel
    evidence: Mapping[str, Evidence] | None
    kept: dict[tuple[str, int], Judged] = field(default_factory=dict)

    def judge(self, pool: Sequence[Priced]) -> list[Judged]:
        """The pool with subjects and predictions, in order."""
        new = {each.candidate.run_key: each for each in pool if each.candidate.run_key not in self.kept}
        self.kept.update(zip(new, predicted(self.question, new.values(), self.model), strict=True))
        return [self.kept[each.candidate.run_key]._replace(priced=each) for each in pool]

    def rank(self, pool: Sequence[Judged], chooser: RuleChooser | None) -> list[Row]:
        """The winner first, then what ties with it, the seen before the extrapolated and the cheap before the dear.

        Then the rest of the likely front, best first. What is on the front in no draw changes nothing.
        """
        if not pool:
            return []
        question, priced, subjects = self.question, [each.priced for each in pool], [each.subject for each in pool]
        draws = self.model.draws(subjects, NUM_DRAWS)
        values, best, tolerance = _objective(question, pool, draws)
        if chooser:
            values, tolerance = list(chooser.scores(subjects, [each.cost("macs") for each in priced])), 0.0
        front = on_front_chances(priced, question.axis, draws)
        # Of what ties, that which the evidence spans comes before what is extrapolated, and then the cheaper.
        expenses = [(each.prediction.extrapolated, *expense(each.priced, question.budgets)) for each in pool]

        def order(at: int) -> tuple[object, ...]:
            return -values[at], expenses[at], priced[at].candidate.key

        leader = min(range(len(pool)), key=order)
        # What no draw puts on the front must not tie either, or adding it would change who wins.
        known = [value if at == leader or front[at] > 0 else math.nan for at, value in enumerate(values)]
        tied = ties(known, expenses, best.tolist(), tolerance)
        rest = sorted((at for at in range(len(pool)) if front[at] >= _ON_FRONT and at not in tied), key=order)
        return [
            Row(number, priced[at], pool[at].prediction, "", float(best[at]), front[at], len(tied) > 1 and at in tied)
            for number, at in enumerate((*tied, *rest), 1)
        ]

    def explained(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The rows with what is to be said of each."""
        said = []
        for row in rows:
            more = [] if row.rank == 1 else [compared(self.question, row, rows[0])]
            line = why(self.question, row.priced, row.prediction, *more)
            said.append(replace(row, why=line, reasons=self._reasons(row)))
        return tuple(said)

    def _reasons(self, row: Row) -> Reasons | None:
        if self.evidence is None:
            return None
        (judged,) = self.judge([row.priced])
        nearest = [self.evidence[each] for each in row.prediction.support.ids if each in self.evidence]
        return Reasons(tuple(self.model.effects(judged.subject)), tuple(nearest[:_NUM_NEAREST]))

    def aside(self, judged: Sequence[Judged]) -> Aside:
        """How many there are, and the highest predictions among them, one size of each checkpoint."""
        first: dict[str, Judged] = {}
        for each in sorted(judged, key=lambda each: (-each.miou, each.priced.candidate.key)):
            first.setdefault(each.priced.candidate.timm_name, each)
        rows = [
            Row(index + 1, each.priced, each.prediction, why(self.question, each.priced, each.prediction))
            for index, each in enumerate(list(first.values())[:_NUM_ASIDE])
        ]
        return Aside(len(judged), tuple(rows))

    def price(self, pool: Sequence[Priced], ranked: Sequence[Row], bound: Budget) -> Price | None:
        """What the best under twice the binding budget is predicted to gain over the best under the budget itself."""
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
    """The value of each candidate, its chance to have the best, and within which difference values tie."""
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


def _notes(question: Question, pool: Sequence[Priced], chooser: RuleChooser | None) -> list[str]:
    notes = [f"ordered by {chooser.title}, not by the model: {chooser.reason}"] if chooser else []
    if question.head == "none":
        notes.append("costs are of the backbone alone; mIoU is with the LUMA head, whose costs come on top")
    elif question.head != "luma":
        notes.append(f"costs are with head {question.head}; backbones that it cannot be attached to are left out")
    for kind in question.kinds:
        uncounted = sum(kind not in each.costs for each in pool)
        if uncounted:
            reason = "only known as a lower bound" if kind in EXACT else "not known on this device: luma profile NAME"
            notes.append(f"{uncounted} candidates left out: their {TITLES[kind]} are {reason}")
    return notes


def _said_of_costs(question: Question, rows: Iterable[Row]) -> list[str]:
    """What the costs of the rows say of themselves, each thing once."""
    notes = []
    for kind in question.kinds:
        said = [row.priced.costs[kind].note for row in rows if kind in row.priced.costs]
        parts = dict.fromkeys(part for note in said for part in note.split("; ") if part)
        if parts:
            notes.append(f"{TITLES[kind]}: {'; '.join(parts)}")
    return notes


def shortlist(answer: Recommendation, count: int = NUM_MEASURED) -> list[Candidate]:
    """The candidates to measure before the answer is relied on: highest predicted mIoU, bound costs only predicted.

    In budget or perhaps so. One of each architecture and size: speed, memory and energy are the architecture's,
    whatever its weights.
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
