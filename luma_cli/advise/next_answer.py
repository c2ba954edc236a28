"""`luma next` in one call: the runs that are worth most, from the shipped tables and the store."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from luma_cli.accuracy.model import load_model
from luma_cli.advise import budgets as held
from luma_cli.advise.axis import place
from luma_cli.advise.budgets import TITLES
from luma_cli.advise.design import most_narrowing, series_of
from luma_cli.advise.hypervolume import REFERENCE_MIOU
from luma_cli.advise.learned_front import has_evidence
from luma_cli.advise.next_run import LEAST_REGRET, Bench, NextRun, Pick, Prospect, Purpose, command, first_choice, rival
from luma_cli.advise.question import Question, unmet
from luma_cli.advise.setting import Fit, Setting, load
from luma_cli.advise.subjects import scale_note, subject
from luma_cli.advise.training_cost import num_images_seen, training_cost, usual_recipe
from luma_cli.errors import NoAnswer, UsageError

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
        self.within = [held.standing(each, self.question.budgets) in ("within", "may exceed") for each in self.pool]
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
