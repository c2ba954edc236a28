"""`luma next`: the runs to train next, by expected gain per cost.

Besides the batch it names a pair of short proxies, and the run of one series' grid of sizes and resolutions that
narrows the scaling exponents most, by the Fisher information of the law (`scaling.series`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import Prediction
from luma_cli.advise.candidates import Candidate, scale_note
from luma_cli.advise.costs import TrainingCost, training_costs, usual_recipe
from luma_cli.advise.fronts import REFERENCE_MIOU, place
from luma_cli.advise.gain import LEAST_REGRET, Pick, RunGains, command, first_choice
from luma_cli.advise.question import TITLES, Question, standing, unmet
from luma_cli.advise.setting import AdviceSetting, Fit, load, predicted, worth_training
from luma_cli.errors import NoAnswer, UsageError
from luma_cli.scaling.law import PLAIN, Point, tokens_of
from luma_cli.scaling.series import MOST_PARAMS, Model, most_telling
from luma_cli.units import counted

Purpose = Literal["front", "budget", "first", "proxy", "exponents"]
Run = tuple[str, int]
# Share of the usual schedule. After a short fine-tuning with a linear head, checkpoints rank much as with larger heads
# (Kerssies, de Geus, Dubbelman: How to Benchmark Vision Foundation Models for Semantic Segmentation, arXiv 2404.12172).
PROXY_SHARE = 1 / 8
# Scores of proxies compare only at about the same cost: within this factor.
MOST_RUNS = 20  # of a batch that fills a number of hours
_PROXY_REACH = 1.5
# A law needs that many sizes and resolutions (`luma scaling` rejects fewer).
_LEAST_GRID = 3


@dataclass(frozen=True, slots=True)
class NextRun:
    """One proposed run. gain: in `gain_unit`, None without one. command: the `luma train` line."""

    purpose: Purpose
    candidate: Candidate
    prediction: Prediction
    cost: TrainingCost
    why: str
    command: str
    gain: float | None = None
    gain_unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """The candidate, its expected gain, its cost and the reason."""
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
class NextRuns:
    """The runs to train next on one dataset.

    batch: most gain per cost first, each as if those before it had come out as expected. proxies: short runs whose
    scores compare only with each other. exponents: the run for the scaling law. hours: limit of the batch.
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
    top: int | None = None,
    explore: bool = False,
    database: Path | None = None,
    fit: Fit = load_model,
) -> NextRuns:
    """The runs of most gain for the front or, with budgets in the question, for the recommendation under them.

    hours: GPU-hours of the batch together; top: its largest size, 3 or as many as fill the hours when None. explore:
    also backbones without results of their series, and sizes that nobody trains at. Where this device's GPU-hours are
    not known, gains are divided by the multiply-adds of training. Raises NoAnswer, UsageError, StoreError.
    """
    top = (3 if hours is None else MOST_RUNS) if top is None else top
    if top < 1:
        raise UsageError(f"--top is {top}, expected at least 1")
    if question.head == "none":
        raise UsageError("--head none cannot be trained; use luma, eomt or linear")
    if hours is not None and not 0 < hours < math.inf:
        raise UsageError(f"--budget-hours is {hours:g}, expected more than zero")
    return answer(load(question, (question.axis, "gpu_hours"), database, fit), hours, top, explore)


def answer(setting: AdviceSetting, hours: float | None, top: int, explore: bool = False) -> NextRuns:
    """The runs of a setting whose pool is priced on the question's axis; see `next_runs`."""
    return _Planner(setting, hours, explore).plan(top)


class _Planner:
    """One setting with its predictions, and the candidates that could be trained."""

    def __init__(self, setting: AdviceSetting, hours: float | None, explore: bool = False) -> None:
        self.setting, self.question = setting, setting.question
        known = [each for each in setting.pool if not math.isnan(place(each, self.question.axis))]
        within = [standing(each, self.question.budgets) in ("within", "may exceed") for each in known]
        if not any(within):
            raise NoAnswer(unmet(self.question, known or setting.pool))
        self.pool, self.within = predicted(self.question, known, setting.model), within
        self.recipe = usual_recipe(self.question.dataset, self.question.head)
        self.in_hours = any("gpu_hours" in each.costs for each in known)
        self.hours = hours
        self.limit = hours if hours is not None and self.in_hours else math.inf
        # Under a budget gains are of the recommendation, else of the front.
        self.purpose: Purpose = "budget" if self.question.budgets else "front"
        self.unit = "mIoU points of regret" if self.question.budgets else "mIoU points x doublings"
        self.asked = " and ".join(budget.text for budget in self.question.budgets)
        # Candidates that could be trained, by index in the pool: within budget, not done, of known training cost.
        self.costs = {
            at: cost
            for at, cost in training_costs(self.question, known, self.recipe, self.in_hours).items()
            if within[at] and known[at].candidate.run_key not in setting.trained
        }
        if not explore:
            self.costs = self._worth() or self.costs
        self.payable = [at for at, cost in self.costs.items() if cost.value <= self.limit]

    def _worth(self) -> dict[int, TrainingCost]:
        """Of the costs those of runs that are no exploration; of the front any size may be the best at its cost."""
        inside = [at for at, is_within in enumerate(self.within) if is_within]
        if self.purpose == "front":
            return {at: cost for at, cost in self.costs.items() if worth_training([self.pool[at]])[0]}
        worth = dict(zip(inside, worth_training([self.pool[at] for at in inside]), strict=True))
        return {at: cost for at, cost in self.costs.items() if worth[at]}

    def plan(self, top: int) -> NextRuns:
        known = any(each.supported for each in self.pool)
        batch = self._batch(top) if known else self._first()
        goal = f"regret saved under {self.asked}" if self.purpose == "budget" else "hypervolume gained"
        price = "GPU-hour" if self.in_hours else "training PFLOP"
        return NextRuns(
            question=self.question,
            ranked_by=f"expected {goal} ({self.unit}) per {price}" if known else "no evidence: a first run by rule",
            batch=batch,
            proxies=self._proxies(batch[0].candidate) if batch else (),
            exponents=self._exponents(),
            hours=self.hours if self.in_hours else None,
            scale_note=scale_note(self.setting.model, self.question.head),
            notes=(*self._notes(known, batch), *self.setting.notes),
        )

    def _batch(self, top: int) -> tuple[NextRun, ...]:
        draws = self.setting.model.draws([each.subject for each in self.pool])
        if self.purpose == "budget":
            bench = RunGains(draws, self.within)
        else:
            places, least = self._places(), REFERENCE_MIOU.get(self.question.dataset, 0.0)
            # The front ends at twice the most expensive affordable run: farther away, that run alone would gain.
            end = 2 * max((places[at] for at in self.payable), default=1.0)
            bench = RunGains(draws, places=places, reference_cost=end, reference_miou=least)
        picks = bench.pick(list(self.costs), [cost.value for cost in self.costs.values()], self.limit, top)
        return tuple(
            self._run(pick.index, self.purpose, self._why(pick), gain=pick.gain, gain_unit=self.unit) for pick in picks
        )

    def _places(self) -> list[float]:
        return [place(each.priced, self.question.axis) for each in self.pool]

    def _why(self, pick: Pick) -> str:
        prediction = self.pool[pick.index].prediction
        if self.purpose == "budget":
            said = f"expected to save {pick.gain:.2f} mIoU of regret under {self.asked}"
            if pick.tells_of != pick.index:
                said += f", through {self.pool[pick.tells_of].priced.candidate.label}"
        else:
            axis = TITLES[self.question.axis]
            said = f"expected to lift the front by {pick.gain:.2f} mIoU points x doublings of {axis}"
        reason = f"; extrapolated: {prediction.reason}" if prediction.extrapolated and prediction.reason else ""
        return f"{said}; {prediction.support.line}{reason}"

    def _run(self, at: int, purpose: Purpose, why: str, **gain: Any) -> NextRun:
        candidate = self.pool[at].priced.candidate
        line = command(candidate, self.question.dataset, self.recipe.name, self.question.head)
        return NextRun(purpose, candidate, self.pool[at].prediction, self.costs[at], why, line, **gain)

    def _first(self) -> tuple[NextRun, ...]:
        """A medium model with one of the best pretrainings; empty where none is affordable."""
        order = sorted(self.payable, key=lambda at: first_choice(self.pool[at].priced.candidate))
        why = f"no evidence on {self.question.dataset}: a medium size with one of the best pretrainings"
        return tuple(self._run(at, "first", why) for at in order[:1])

    def _proxies(self, first: Candidate) -> tuple[NextRun, ...]:
        """Short runs, with a linear head, of the first pick and of its rival.

        The rival has the best expected mIoU of other weights at the same resolution and about the same cost.
        """
        places, found = self._places(), {at: self.pool[at].priced.candidate for at in self.costs}
        mine = next(at for at, each in found.items() if each == first)
        rivals = [
            (-self.pool[at].miou, each.key, at)
            for at, each in found.items()
            if (each.timm_name != first.timm_name and each.resolution == first.resolution)
            and 1 / _PROXY_REACH <= places[at] / places[mine] <= _PROXY_REACH
        ]
        pair = [mine, *(at for _, _, at in sorted(rivals)[:1])]
        epochs = max(1, round(PROXY_SHARE * self.recipe.epochs))
        runs = []
        for at, against in zip(pair, [*pair[1:], mine], strict=True):
            why = f"{epochs} of {self.recipe.epochs:g} epochs, linear head"
            why += "" if against == at else f"; against {found[against].label}"
            line = command(found[at], self.question.dataset, self.recipe.name, "linear", epochs)
            cost = self.costs[at].share(epochs / self.recipe.epochs)
            runs.append(NextRun("proxy", found[at], self.pool[at].prediction, cost, why, line))
        return tuple(runs)

    def _exponents(self) -> NextRun | None:
        """The affordable run of a series' grid that narrows the exponents most."""
        trained, places = self.setting.trained, {each.priced.candidate.run_key: at for at, each in enumerate(self.pool)}
        mious = {run: self.pool[at].miou for run, at in places.items() if not self.pool[at].prediction.extrapolated}
        grid = series_of([each.priced.candidate for each in self.pool], trained, mious)
        affordable = {self.pool[at].priced.candidate.run_key for at in self.payable}
        found = most_narrowing(grid, trained, affordable)
        if found is None:
            return None
        runs = sum(each.run_key in trained for each in grid)
        why = (
            f"narrows the exponents of {found.card} with {found.pretraining} most, where you have "
            f"{counted(runs, 'run')}; a law needs 9, an exponent about 16"
        )
        return self._run(places[found.run_key], "exponents", why)

    def _notes(self, known: bool, batch: Sequence[NextRun]) -> list[str]:
        notes = []
        if not self.in_hours:
            limit = "" if self.hours is None else f"; --budget-hours {self.hours:g} is not applied"
            notes.append(f"GPU-hours are not known on this device: ranked by the multiply-adds of training{limit}")
        if self.limit < math.inf and batch:
            notes.append(f"a run shorter than its share of the {self.limit:g} hours counts as that share")
        if known and not batch and self.payable and self.purpose == "budget":
            settled = f"no run is expected to improve the choice under {self.asked} by {LEAST_REGRET:g} mIoU"
            notes.append(f"{settled}; omit --budget to improve the front")
        elif known and not batch:
            notes.append("no run within the hours has an expected gain")
        if known and not self.setting.trained:
            notes.append("no comparable run of your own yet: the first one also shows LUMA's level")
        if batch:
            if batch[0].purpose == "budget":
                notes.append("regret: expected mIoU below the best within budget")
            notes.append(f"recipe {self.recipe.name}; compare proxies only with each other, never with full runs")
        return notes


def series_of(candidates: Sequence[Candidate], trained: Collection[Run], mious: Mapping[Run, float]) -> list[Candidate]:
    """The grid of the card and pretraining with most runs, then with the highest expected mIoU.

    trained: `run_key` of comparable runs. Sizes above MOST_PARAMS are left out, as in the designs of `luma scaling`.
    Empty when no series has three sizes at three resolutions.
    """
    series: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for each in candidates:
        if each.card and 0 < (each.backbone_params or 0) <= MOST_PARAMS:
            series[each.card, each.pretraining].append(each)
    grids = {
        key: each
        for key, each in series.items()
        if len({one.backbone_params for one in each}) >= _LEAST_GRID
        and len({one.resolution for one in each}) >= _LEAST_GRID
    }

    def worth(key: tuple[str, str]) -> tuple[int, float]:
        runs = [each.run_key for each in grids[key]]
        return sum(run in trained for run in runs), max(mious.get(run, -math.inf) for run in runs)

    return grids[max(sorted(grids), key=worth)] if grids else []


def most_narrowing(
    grid: Sequence[Candidate], trained: Collection[Run], affordable: Collection[Run]
) -> Candidate | None:
    """The new run that narrows the exponents most, the cheapest of equals; None without one.

    Only sizes and resolutions count, no results: the cost is C = k N T.
    """
    done, models = [], {}
    for each in sorted(grid, key=lambda each: each.run_key):
        params = float(each.backbone_params or 0)
        if each.run_key in trained:
            tokens = tokens_of(each.resolution, each.resolution)
            done.append(Point(each.timm_name, each.name, params, tokens, 0.0))
        elif each.run_key in affordable:
            models[Model(each.timm_name, each.resolution, params, each.macs or 0)] = each
    found = most_telling(done, list(models), PLAIN)
    return None if found is None else models[found]
