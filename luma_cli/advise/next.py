"""What to train next: runs by what they are expected to add, for what they cost, with a proxy and a run for the law."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import AccuracyModel, Prediction
from luma_cli.accuracy.subjects import Subject
from luma_cli.advise.candidates import MODEST_MACS, Candidate, has_evidence, scale_note, subject
from luma_cli.advise.costs import TrainingCost, num_images_seen, training_cost, usual_recipe
from luma_cli.advise.fronts import REFERENCE_COST, REFERENCE_MIOU, TIE_MIOU, Floats, place
from luma_cli.advise.gain import (
    Believer,
    expected_hypervolume_improvement,
    expected_improvement,
    most_narrowing,
    series_of,
    steps,
    value_of_information,
)
from luma_cli.advise.question import TITLES, Priced, Question, standing, unmet
from luma_cli.advise.setting import Fit, Setting, load
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.units import BudgetKind

Purpose = Literal["front", "budget", "first", "proxy", "exponents"]
# Of what the most promising run that can be paid promises; less is not proposed, however cheap. Without it gain per
# cost would always name the smallest model: prices span a factor of thousands, gains of ten.
LEAST_PROMISE = 0.5
# Of what the most promising run promised before any was chosen; a batch ends where the rest promises less.
LEAST_OF_FIRST = 0.02
# Points of mIoU below which no run is said to change a recommendation.
LEAST_REGRET = 0.01
_PAPERS_BEST = ("dinov3", "eva02")  # pretrainings that arXiv 2607.00687 found best


@dataclass(frozen=True, slots=True)
class Prospect:
    """A candidate that could be trained, with what its training costs and what is expected of it."""

    priced: Priced
    prediction: Prediction
    cost: TrainingCost

    @property
    def candidate(self) -> Candidate:
        """The backbone, pretraining and resolution."""
        return self.priced.candidate


@dataclass(frozen=True, slots=True)
class NextRun:
    """One run that is proposed. gain: in `gain_unit`, None where it is not a number. command: the exact line."""

    purpose: Purpose
    candidate: Candidate
    prediction: Prediction
    cost: TrainingCost
    why: str
    command: str
    gain: float | None = None
    gain_unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """What is run, why, what it is expected to add, and what it costs."""
        return {
            "purpose": self.purpose,
            **self.candidate.to_json(),
            **self.prediction.to_json(),
            "training_cost": self.cost.to_json(),
            "expected_gain": self.gain,
            "gain_unit": self.gain_unit or None,
            "why": self.why,
            "command": self.command,
        }


@dataclass(frozen=True, slots=True)
class Pick:
    """A candidate by its place in the list, and what its run is expected to add given the picks before it.

    tells_of: the candidate through whom it is worth that; itself for the front.
    """

    index: int
    gain: float
    tells_of: int


def centred(draws: Floats) -> Floats:
    """The draws [S, C] less what all candidates have in common in each draw, around the same means.

    The level that all share (how LUMA compares to other heads, say) moves the whole front and no choice on it. It is
    estimated by the mean of all, shrunk by the part of that mean's variance that is shared and not chance.
    """
    num = draws.shape[1]
    level = draws.mean(axis=1)
    if num < 2 or level.var() == 0:
        return draws
    covariance = (num * level.var() - draws.var(axis=0).mean()) / (num - 1)
    shared = float(np.clip(covariance / level.var(), 0.0, 1.0))
    return np.asarray(draws - shared * (level - level.mean())[:, np.newaxis], dtype=np.float64)


class Bench:
    """The prospects with the joint posterior of all candidates: what each run adds, given those believed done."""

    def __init__(
        self,
        places: Floats,
        draws: Floats,
        kind: BudgetKind,
        within: Sequence[bool] | None = None,
        reference: tuple[float, float] | None = None,
    ) -> None:
        """places: [C] on the axis. draws: [S, C] of mIoU. within: whether a budget is met, None without a budget.

        reference: the largest cost and the least mIoU that count for the hypervolume; the kind's fixed one when None.
        """
        self._places, self._within = places, within
        means = draws.mean(axis=0)
        # What is common to all cancels in a regret by itself.
        self.believer = Believer(draws if within else centred(draws), TIE_MIOU)
        self._front = steps(places, means, *(reference or (REFERENCE_COST[kind], 0.0)))

    @property
    def is_under_budget(self) -> bool:
        """Whether gains are of the recommendation under a budget; else of the front."""
        return self._within is not None

    @property
    def gain_unit(self) -> str:
        """What gains are counted in."""
        return "mIoU points of regret" if self.is_under_budget else "mIoU points x doublings"

    def gains(self, runs: Sequence[int]) -> Floats:
        """What each of the runs, indices of candidates, is expected to add."""
        if self._within is not None:
            return value_of_information(self.believer, runs, self._within)
        at = list(runs)
        mean, sd = self.believer.mean[at], self.believer.sd[at]
        return expected_hypervolume_improvement(self._places[at], mean, sd, self._front)

    def tells_of(self, run: int) -> int:
        """Through whom the run is worth most: whose new mean alone would change the recommendation for most gain."""
        allowed = np.flatnonzero(np.ones(len(self._places), bool) if self._within is None else self._within)
        if len(allowed) < 2:
            return run
        mean, shift = self.believer.mean[allowed], np.abs(self.believer.shifts([run], allowed)[0])
        order = np.argsort(-mean, kind="stable")
        rivals = np.full(len(allowed), mean[order[0]])  # of each the best other
        rivals[order[0]] = mean[order[1]]
        gains = expected_improvement(np.where(mean > rivals, rivals - mean, mean - rivals), shift, 0.0)
        return int(allowed[gains.argmax()]) if gains.max() > 0 else run

    def pick(self, runs: Sequence[int], costs: Sequence[float], limit: float, count: int) -> list[Pick]:
        """Up to `count` of the runs, most gain per cost first, that cost no more than the limit together.

        A run that costs less than its share of a finite limit counts as that share: what is not spent buys nothing.
        """
        price = dict(zip(runs, costs, strict=True))
        left, picks, least = list(price), list[Pick](), LEAST_REGRET if self.is_under_budget else 0.0
        while len(picks) < count:
            left = [run for run in left if price[run] <= limit]
            gains = self.gains(left).tolist() if left else []
            most = max(gains, default=0.0)
            least = least if picks else max(least, LEAST_OF_FIRST * most)
            floor = max(LEAST_PROMISE * most, least)
            share = limit / (count - len(picks)) if math.isfinite(limit) else 0.0
            worth = [
                (gain / max(price[run], share), -run, gain)
                for run, gain in zip(left, gains, strict=True)
                if gain >= floor > 0
            ]
            if not worth:
                break
            _, negative, gain = max(worth)
            picks.append(Pick(-negative, gain, self.tells_of(-negative) if self.is_under_budget else -negative))
            self.believer.believe(-negative)
            limit -= price[-negative]
            left.remove(-negative)
        return picks


def rival(first: Prospect, prospects: Sequence[Prospect], kind: BudgetKind, reach: float = 1.5) -> Prospect | None:
    """The best expected prospect of other weights at about the same cost and the same resolution; None without one."""
    at = place(first.priced, kind)
    others = [
        each
        for each in prospects
        if each.candidate.timm_name != first.candidate.timm_name
        and each.candidate.resolution == first.candidate.resolution
        and 1 / reach <= place(each.priced, kind) / at <= reach
    ]
    return min(others, key=lambda each: (-each.prediction.miou_percent, each.candidate.key), default=None)


def first_choice(candidate: Candidate) -> tuple[bool, bool, float, tuple[str, str, int]]:
    """Sort key of a first run where nothing is known: of at most MODEST_MACS with a pretraining that the paper found
    best the largest.
    """
    macs = candidate.macs or math.inf
    is_large = macs > MODEST_MACS
    return is_large, candidate.pretraining not in _PAPERS_BEST, macs if is_large else -macs, candidate.key


def command(candidate: Candidate, dataset: str, recipe: str, head: str, epochs: int | None = None) -> str:
    """The `luma train` line of a run: official dataset, resolution, recipe by name, head.

    >>> from luma_cli.advise.candidates import has_evidence, Candidate
    >>> command(Candidate("vit_s.dinov3", "t", "a", 512, None, None), "ade20k", "ade20k", "luma")
    'luma train vit_s.dinov3 --data ade20k --res 512 --recipe ade20k --head luma'
    """
    words = ["luma", "train", candidate.name, "--data", dataset, "--res", str(candidate.resolution)]
    words += ["--recipe", recipe, "--head", head]
    words += [] if epochs is None else ["--epochs", str(epochs)]
    return shlex.join(words)


# The contenders: no run of a candidate that is unlikelier than these to be the best could change who is.
NUM_CONTENDERS = 60


def worthiest(
    question: Question,
    within: Sequence[tuple[Priced, Subject, Prediction]],
    model: AccuracyModel,
    trained: frozenset[tuple[str, int]],
) -> str:
    """The `luma train` line with what it is expected to save and what it costs; says so where no run is worth it.

    within: every candidate that surely meets the budgets, those without evidence too. trained: timm name and resolution
    of the user's comparable runs, which are not proposed again.
    """
    if not any(has_evidence(prediction) for _, _, prediction in within):
        return _first(question, [priced for priced, _, _ in within])
    contenders = sorted(within, key=lambda each: (-each[2].interval_80[1], each[0].candidate.key))[:NUM_CONTENDERS]
    head = "luma" if question.head == "none" else question.head  # nothing is trained without one
    recipe = usual_recipe(question.dataset, head)
    images = num_images_seen(recipe, question.dataset)
    in_hours = all("gpu_hours" in priced.costs for priced, _, _ in contenders)
    costs = {
        at: cost
        for at, (priced, _, _) in enumerate(contenders)
        if priced.candidate.run_key not in trained
        and (cost := training_cost(priced, images, in_hours, question.convention)) is not None
    }
    places = np.array([place(priced, question.axis) for priced, _, _ in contenders])
    draws = model.draws([subject for _, subject, _ in contenders], 1000)
    reference = float(places.max()), 0.0
    bench = Bench(places, draws, question.axis, [True] * len(contenders), reference)
    picks = bench.pick(list(costs), [cost.value for cost in costs.values()], float("inf"), 1) if costs else []
    if not picks:
        return f"none is expected to better this by {LEAST_REGRET:g} mIoU; luma next looks at the whole front"
    (pick,) = picks
    line = command(contenders[pick.index][0].candidate, question.dataset, recipe.name, head)
    worth = f"expected to better this choice by {pick.gain:.2f} mIoU, for {costs[pick.index].text} of training"
    return f"{line} ({worth}; luma next weighs runs of models that cannot win themselves too)"


def _first(question: Question, within: Sequence[Priced]) -> str:
    """The run that `luma next` begins with too where no row speaks about any candidate."""
    chosen = min(within, key=lambda priced: first_choice(priced.candidate)).candidate
    line = command(chosen, question.dataset, usual_recipe(question.dataset, question.head).name, question.head)
    return f"{line} (nothing is known about any candidate: a middle size, a pretraining found best)"


# Of the usual schedule. Fine-tuned with a linear head for short, checkpoints rank much as they do with larger heads
# (Kerssies, de Geus, Dubbelman: How to Benchmark Vision Foundation Models for Semantic Segmentation, arXiv 2404.12172).
PROXY_SHARE = 1 / 8


@dataclass(frozen=True, slots=True)
class NextRuns:
    """What to train next on one dataset.

    batch: to be run in this order, most gain per cost first, each as if those before it had come out as expected.
    proxies: short runs whose scores compare with each other alone. exponents: the run for the scaling law. ranked_by:
    gain and cost in words. hours: limit for the batch, None without.
    """

    question: Question
    ranked_by: str
    batch: tuple[NextRun, ...]
    proxies: tuple[NextRun, ...]
    exponents: NextRun | None
    hours: float | None
    scale_note: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Schema 1."""
        return {
            "schema": 1,
            "dataset": self.question.dataset,
            "budgets": [budget.text for budget in self.question.budgets],
            "budget_hours": self.hours,
            "ranked_by": self.ranked_by,
            "scale": self.scale_note,
            "batch": [run.to_json() for run in self.batch],
            "proxy": [run.to_json() for run in self.proxies],
            "exponents": self.exponents and self.exponents.to_json(),
            "notes": list(self.notes),
        }


def next_runs(
    question: Question,
    *,
    hours: float | None = None,
    top: int = 3,
    database: Path | None = None,
    fit: Fit = load_model,
) -> NextRuns:
    """The runs worth most for the front, or, with budgets in the question, for the recommendation under them.

    hours: GPU-hours that the batch may take together; top: its most runs. Where no GPU-hours are known on this device
    gains are held against the multiply-adds of training, and a note says so. Raises NoAnswer, UsageError, StoreError.
    """
    if top < 1:
        raise UsageError(f"--top is {top}, expected at least 1")
    if question.head == "none":
        raise UsageError("--head none cannot be trained; take luma, eomt or linear")
    if hours is not None and not 0 < hours < math.inf:
        raise UsageError(f"--budget-hours is {hours:g}, expected more than zero")
    setting = load(question, (question.axis, "gpu_hours"), database, fit)
    return answer(setting, hours, top)


def answer(setting: Setting, hours: float | None, top: int) -> NextRuns:
    """The runs of a setting whose pool is priced on the question's axis; see `next_runs`."""
    return _Planner(setting, hours).plan(top)


class _Planner:
    """One setting with the posterior of its candidates, and the prospects among them."""

    def __init__(self, setting: Setting, hours: float | None) -> None:
        self.setting, self.question, self.limit = setting, setting.question, hours
        kind = self.question.axis
        self.pool = [each for each in setting.pool if not math.isnan(place(each, kind))]
        if not self.pool:
            raise NoAnswer(unmet(self.question, setting.pool))
        self.recipe = usual_recipe(self.question.dataset, self.question.head)
        subjects = [subject(each.candidate, self.question.dataset, self.question.head) for each in self.pool]
        self.predictions = setting.model.predict(subjects)
        self.draws = setting.model.draws(subjects)
        self.in_hours = any("gpu_hours" in each.costs for each in self.pool)
        self.within = [standing(each, self.question.budgets) in ("within", "may exceed") for each in self.pool]
        self.prospects = self._prospects()
        if not any(self.within):
            raise NoAnswer(unmet(self.question, self.pool))

    def _prospects(self) -> dict[int, Prospect]:
        """What could be trained, by its place in the pool: within budget, not done, of a known training cost."""
        images = num_images_seen(self.recipe, self.question.dataset)
        found = {}
        for index, (priced, prediction) in enumerate(zip(self.pool, self.predictions, strict=True)):
            cost = training_cost(priced, images, self.in_hours, self.question.convention)
            prospect = None if cost is None else Prospect(priced, prediction, cost)
            if prospect is not None and self.within[index] and prospect.candidate.run_key not in self.setting.trained:
                found[index] = prospect
        return found

    def plan(self, top: int) -> NextRuns:
        known = any(has_evidence(each) for each in self.predictions)
        bench = self._bench(under_budget=bool(self.question.budgets))
        batch = self._batch(bench, top) if known else self._first()
        is_settled = not batch and bench.is_under_budget
        if is_settled:
            bench = self._bench(under_budget=False)
            batch = self._batch(bench, top)
        proxies = self._proxies(batch[0]) if batch else ()
        return NextRuns(
            question=self.question,
            ranked_by=self._ranked_by(bench) if known else "no evidence: a first run by rule",
            batch=batch,
            proxies=proxies,
            exponents=self._exponents(),
            hours=self.limit if self.in_hours else None,
            scale_note=scale_note(self.setting.model, self.question.head),
            notes=(*self._notes(known, batch, is_settled), *self.setting.notes),
        )

    def _bench(self, under_budget: bool) -> Bench:
        places = np.array([place(each, self.question.axis) for each in self.pool])
        least = REFERENCE_MIOU.get(self.question.dataset, 0.0)
        within = self.within if under_budget else None
        return Bench(places, self.draws, self.question.axis, within, (self._reference(), least))

    def _reference(self) -> float:
        """Where the front ends: at the budget on its axis, else at twice the dearest run that can be paid.

        With an end far beyond them all the dearest candidate alone would gain from its distance.
        """
        limits = [budget for budget in self.question.budgets if budget.kind == self.question.axis]
        if limits:
            return 1 / limits[0].limit if limits[0].is_floor else limits[0].limit
        places = [place(each.priced, self.question.axis) for each in self.prospects.values() if self._affords(each)]
        return 2 * max(places, default=1.0)

    def _affords(self, prospect: Prospect) -> bool:
        return self.limit is None or not self.in_hours or prospect.cost.value <= self.limit

    def _batch(self, bench: Bench, top: int) -> tuple[NextRun, ...]:
        runs = list(self.prospects)
        limit = self.limit if self.limit is not None and self.in_hours else math.inf
        picks = bench.pick(runs, [self.prospects[run].cost.value for run in runs], limit, top)
        purpose: Purpose = "budget" if bench.is_under_budget else "front"
        return tuple(
            replace(
                self._run(self.prospects[pick.index], purpose, self._why(purpose, pick)),
                gain=pick.gain,
                gain_unit=bench.gain_unit,
            )
            for pick in picks
        )

    def _why(self, purpose: Purpose, pick: Pick) -> str:
        prediction, other = self.predictions[pick.index], self.pool[pick.tells_of].candidate
        if purpose == "budget":
            said = f"expected to save {pick.gain:.2f} mIoU of regret under {_asked(self.question)}"
            said += "" if pick.tells_of == pick.index else f", by what it tells of {other.label}"
        else:
            said = (
                f"expected to lift the front by {pick.gain:.2f} mIoU points x doublings of {TITLES[self.question.axis]}"
            )
        reason = f"; extrapolated: {prediction.reason}" if prediction.extrapolated and prediction.reason else ""
        return f"{said}; {prediction.support.line}{reason}"

    def _run(self, prospect: Prospect, purpose: Purpose, why: str) -> NextRun:
        candidate, question = prospect.candidate, self.question
        line = command(candidate, question.dataset, self.recipe.name, question.head)
        return NextRun(purpose, candidate, prospect.prediction, prospect.cost, why, line)

    def _first(self) -> tuple[NextRun, ...]:
        """A modest model with a pretraining that the paper found best."""
        payable = (each for each in self.prospects.values() if self._affords(each))
        order = sorted(payable, key=lambda each: first_choice(each.candidate))
        why = (
            f"nothing is known about any candidate on {self.question.dataset}: a middle size, a pretraining found best"
        )
        return tuple(self._run(each, "first", why) for each in order[:1])

    def _proxies(self, first: NextRun) -> tuple[NextRun, ...]:
        """A short run of the first pick with a linear head, and one of its rival, to be compared with each other."""
        found = next(each for each in self.prospects.values() if each.candidate == first.candidate)
        other = rival(found, list(self.prospects.values()), self.question.axis)
        pair = [(found, other)] if other is None else [(found, other), (other, found)]
        return tuple(self._proxy(each, against) for each, against in pair)

    def _proxy(self, prospect: Prospect, against: Prospect | None) -> NextRun:
        epochs = max(1, round(PROXY_SHARE * self.recipe.epochs))
        why = f"{epochs} of {self.recipe.epochs:g} epochs, linear head"
        why += f"; against {against.candidate.label}" if against else ""
        line = command(prospect.candidate, self.question.dataset, self.recipe.name, "linear", epochs)
        cost = prospect.cost.share(epochs / self.recipe.epochs)
        return NextRun("proxy", prospect.candidate, prospect.prediction, cost, why, line)

    def _exponents(self) -> NextRun | None:
        """Of a series' grid the corner that tells most about the exponents, within the hours."""
        pairs = zip(self.pool, self.predictions, strict=True)
        mious = {each.candidate.run_key: found.miou_percent for each, found in pairs if not found.extrapolated}
        grid = series_of([each.candidate for each in self.pool], self.setting.trained, mious)
        affordable = {each.candidate.run_key for each in self.prospects.values() if self._affords(each)}
        found = most_narrowing(grid, self.setting.trained, affordable)
        if found is None:
            return None
        runs = sum(each.run_key in self.setting.trained for each in grid)
        why = (
            f"tells most about the exponents of {found.card} with {found.pretraining}, where you have {runs} "
            f"{'run' if runs == 1 else 'runs'}; a law needs 9, an exponent about 16"
        )
        prospect = next(each for each in self.prospects.values() if each.candidate == found)
        return self._run(prospect, "exponents", why)

    def _ranked_by(self, bench: Bench) -> str:
        goal = f"regret saved under {_asked(self.question)}" if bench.is_under_budget else "hypervolume gained"
        return f"expected {goal} ({bench.gain_unit}) per {'GPU-hour' if self.in_hours else 'training PFLOP'}"

    def _notes(self, known: bool, batch: Sequence[NextRun], is_settled: bool) -> list[str]:
        notes = []
        if is_settled:
            asked = f"what is recommended under {_asked(self.question)}"
            notes.append(f"no run is expected to better {asked} by {LEAST_REGRET:g} mIoU; ranked by the front instead")
        if not self.in_hours:
            limit = f"; --budget-hours {self.limit:g} is not applied" if self.limit is not None else ""
            notes.append(f"no GPU-hours are known on this device: ranked by the multiply-adds of training{limit}")
        if self.limit is not None and self.in_hours and batch:
            notes.append(f"a run that takes less than its share of the {self.limit:g} hours counts as that share")
        if known and not batch:
            notes.append("no run within the hours is expected to add anything")
        if known and not self.setting.trained:
            notes.append("no comparable run of your own yet: the first one also tells how LUMA's level compares")
        if batch:
            if batch[0].purpose == "budget":
                notes.append("regret: mIoU that what is recommended is expected to lack against the best within budget")
            notes.append(f"recipe {self.recipe.name}; proxies compare with each other alone, never with full runs")
        return notes


def _asked(question: Question) -> str:
    return " and ".join(budget.text for budget in question.budgets)
