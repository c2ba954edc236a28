"""`luma front`: the front learned from all evidence: the upper envelope of the predictions, with probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import AccuracyModel, Prediction
from luma_cli.advise.candidates import Candidate, scale_note
from luma_cli.advise.fronts import (
    LEVELS,
    NUM_DRAWS,
    REFERENCE_COST,
    REFERENCE_MIOU,
    Attainment,
    attainment,
    axis_kind,
    hypervolumes,
    knee,
    marginal_prices,
    on_front,
    on_front_chances,
    place,
)
from luma_cli.advise.question import TITLES, Priced, Question, cost_note, not_known, unmet
from luma_cli.advise.setting import AdviceSetting, Fit, load, predicted
from luma_cli.errors import NoAnswer
from luma_cli.evidence.own_runs import OwnRow
from luma_cli.to_json import to_json
from luma_cli.units import FLOORS, BudgetKind

# Other candidates are shown when this likely on the front, and at most so many.
LIKELY, NUM_LIKELY = 0.1, 5


@dataclass(frozen=True, slots=True)
class FrontRow:
    """One candidate on the envelope, or likely on the front.

    on_front: its chance. attained: mIoU that the front reaches at its cost, for each of `fronts.LEVELS`. per_doubling:
    mIoU points gained up to twice this cost; None for the last.
    """

    priced: Priced
    prediction: Prediction
    on_front: float
    attained: tuple[float, ...]
    per_doubling: float | None = None

    @property
    def candidate(self) -> Candidate:
        """The backbone with its pretraining and resolution."""
        return self.priced.candidate

    def to_json(self, kind: BudgetKind) -> dict[str, Any]:
        """The candidate, its predicted mIoU, its cost with the origin, and its place on the front."""
        return {
            **self.candidate.to_json(),
            **self.prediction.to_json(),
            "cost": self.priced.costs[kind].to_json(),
            "p_on_front": self.on_front,
            "attained": {f"{level:.0%}": miou for level, miou in zip(LEVELS, self.attained, strict=True)},
            "miou_per_doubling": self.per_doubling,
        }


@dataclass(frozen=True, slots=True)
class OwnDistance:
    """A comparable run of the user's own. by: the envelope up to the run's cost; None where nothing is that cheap."""

    row: OwnRow
    priced: Priced
    by: FrontRow | None

    @property
    def below(self) -> float | None:
        """MIoU points from the run up to the envelope, negative when the run is above it."""
        return None if self.by is None else self.by.prediction.miou_percent - self.row.run.miou_percent

    def to_json(self, kind: BudgetKind) -> dict[str, Any]:
        """The run, its cost, and its distance."""
        return {
            **to_json(self.row),
            "cost": self.priced.costs[kind].to_json(),
            "miou_below_front": self.below,
            "front_at_its_cost": None if self.by is None else self.by.candidate.label,
        }


@dataclass(frozen=True, slots=True)
class Backdrop:
    """The background of the front's picture, costs in the kind's own unit and mIoU in percent.

    candidates: cost and predicted mIoU of each. band: cost and the mIoU of each of `fronts.LEVELS`, where it rises.
    """

    candidates: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class LearnedFront:
    """The front of one dataset over one kind of cost, cheapest first.

    likely: other candidates with the best chances to be on the front. knee: the most frequent one and its share of the
    draws. hypervolume: mean and 80 % interval over the draws, up to the fixed reference point.
    """

    question: Question
    kind: BudgetKind
    rows: tuple[FrontRow, ...]
    likely: tuple[FrontRow, ...]
    knee: tuple[Candidate, float] | None
    hypervolume: tuple[float, tuple[float, float]]
    own: tuple[OwnDistance, ...]
    backdrop: Backdrop
    scale_note: str
    notes: tuple[str, ...] = ()

    @property
    def num_candidates(self) -> int:
        """Candidates that the front was chosen from."""
        return len(self.backdrop.candidates)

    @property
    def reference_miou(self) -> float:
        """The least mIoU that the hypervolume counts."""
        return REFERENCE_MIOU.get(self.question.dataset, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Schema 1; mIoU in percent, costs in the unit of their kind."""
        return {
            "schema": 1,
            "dataset": self.question.dataset,
            "axis": self.kind,
            "scale": self.scale_note,
            "candidates": self.num_candidates,
            "front": [row.to_json(self.kind) for row in self.rows],
            "likely_on_front": [row.to_json(self.kind) for row in self.likely],
            "knee": self.knee and {"candidate": self.knee[0].to_json(), "share": self.knee[1]},
            "hypervolume": {
                "mean": self.hypervolume[0],
                "interval_80": list(self.hypervolume[1]),
                "unit": "mIoU points x doublings of cost",
                "reference": {"cost": REFERENCE_COST[self.kind], "miou": self.reference_miou},
            },
            "own_runs": [each.to_json(self.kind) for each in self.own],
            "notes": list(self.notes),
        }


def front_of(
    question: Question,
    axis: str = "gflops",
    *,
    only_own: bool = False,
    database: Path | None = None,
    fit: Fit = load_model,
) -> LearnedFront:
    """The learned front over `axis`, one of `fronts.AXES`. only_own: of the user's comparable runs alone.

    Raises NoAnswer when no candidate is left, UsageError, StoreError.
    """
    kind = axis_kind(axis)
    setting = load(question, (kind,), database, fit)
    if only_own:
        setting = _only_own(setting)
    found = learned_front(question, kind, setting.pool, setting.model, setting.own)
    return replace(found, notes=(*found.notes, *_not_comparable(setting), *setting.notes))


def learned_front(
    question: Question, kind: BudgetKind, pool: Sequence[Priced], model: AccuracyModel, own: Sequence[OwnRow] = ()
) -> LearnedFront:
    """The front of the candidates over one kind of cost.

    Candidates of the pool without that cost or without evidence are left out, and the notes count them. own: runs as
    judged; comparable ones get their distance. Raises NoAnswer when nothing is left.
    """
    placed = [each for each in pool if not math.isnan(place(each, kind))]
    judged = [each for each in predicted(question, placed, model) if each.supported]
    if not judged:
        raise NoAnswer(_nothing(question, kind, pool, placed))
    draws = model.draws([each.subject for each in judged], NUM_DRAWS)
    chosen, mious = [each.priced for each in judged], [each.miou for each in judged]
    places = [place(each, kind) for each in chosen]
    chance = on_front_chances(chosen, kind, draws)
    # The best of a thousand guesses is the luckiest one: no candidate counts for more than its own interval supports,
    # and one outside of the evidence for no more than is expected of it.
    most = [each.miou if each.prediction.extrapolated else each.prediction.interval_90[1] for each in judged]
    band = attainment(places, np.minimum(draws, most))

    def row(at: int, per_doubling: float | None = None) -> FrontRow:
        return FrontRow(chosen[at], judged[at].prediction, chance[at], band.at(places[at]), per_doubling)

    envelope = _envelope(chosen, mious, places)
    gains = marginal_prices([places[at] for at in envelope], [mious[at] for at in envelope])
    rows = tuple(map(row, envelope, gains))
    others = [at for at, each in enumerate(chance) if each >= LIKELY and at not in set(envelope)]
    others.sort(key=lambda at: (-chance[at], chosen[at].candidate.key))
    least = REFERENCE_MIOU.get(question.dataset, 0.0)
    voted = knee(places, draws, least)
    volumes = hypervolumes(places, draws, REFERENCE_COST[kind], least)
    low, high = np.quantile(volumes, (0.1, 0.9)).tolist()
    return LearnedFront(
        question=question,
        kind=kind,
        rows=rows,
        likely=tuple(map(row, others[:NUM_LIKELY])),
        knee=voted and (chosen[voted[0]].candidate, voted[1]),
        hypervolume=(float(volumes.mean()), (low, high)),
        own=_own_distances(own, placed, rows, kind),
        backdrop=_backdrop(places, mious, band, kind),
        scale_note=scale_note(model, question.head),
        notes=(*_notes(kind, pool, placed, len(chosen)), *cost_note(kind, [row.priced for row in rows])),
    )


def _envelope(pool: Sequence[Priced], mious: Sequence[float], places: Sequence[float]) -> list[int]:
    """Indices on the front of the predicted means, cheapest first; the first by name of equal points."""
    kept = np.flatnonzero(on_front(places, mious)).tolist()
    first: dict[float, int] = {}
    for at in sorted(kept, key=lambda at: (places[at], pool[at].candidate.key)):
        first.setdefault(places[at], at)
    return list(first.values())


def _backdrop(places: Sequence[float], mious: Sequence[float], band: Attainment, kind: BudgetKind) -> Backdrop:
    rises = [0, *(np.flatnonzero(np.any(np.diff(band.miou, axis=1) > 0, axis=0)) + 1)]
    back = (lambda value: 1 / value) if kind in FLOORS else float
    return Backdrop(
        tuple((back(at), miou) for at, miou in zip(places, mious, strict=True)),
        tuple((back(float(band.costs[at])), tuple(band.miou[:, at].tolist())) for at in rises),
    )


def _own_distances(
    own: Sequence[OwnRow], pool: Sequence[Priced], rows: Sequence[FrontRow], kind: BudgetKind
) -> tuple[OwnDistance, ...]:
    """The distance of each comparable run with a known cost, in the order of the runs."""
    known = {each.candidate.run_key: each for each in pool}
    found = []
    for row in own:
        priced = known.get(row.run.run_key)
        if row.why_not or priced is None:
            continue
        cheaper = [each for each in rows if place(each.priced, kind) <= place(priced, kind)]
        found.append(OwnDistance(row, priced, cheaper[-1] if cheaper else None))
    return tuple(found)


def _only_own(setting: AdviceSetting) -> AdviceSetting:
    if not setting.trained:
        why = next((f": the best is not comparable ({', '.join(row.why_not)})" for row in setting.own), "")
        raise NoAnswer(f"no comparable run of your own on {setting.question.dataset}{why}; run: luma next")
    kept = [each for each in setting.pool if each.candidate.run_key in setting.trained]
    return replace(setting, pool=tuple(kept))


def _nothing(question: Question, kind: BudgetKind, pool: Sequence[Priced], placed: Sequence[Priced]) -> str:
    if not pool:
        return unmet(question, pool)
    if not placed:
        shipped = "" if kind == "joules" else ", name a known device, e.g. --device 'RTX 4090',"
        missing = f"{not_known(kind)} for any of {len(pool)} candidates; run luma profile NAME"
        return f"{missing}{shipped} or use --x gflops"
    nothing = f"no evidence about any of {len(placed)} candidates on {question.dataset}"
    return f"{nothing}; run: luma next --dataset {question.dataset}"


def _notes(kind: BudgetKind, pool: Sequence[Priced], placed: Sequence[Priced], num_chosen: int) -> list[str]:
    notes = []
    if len(placed) < len(pool):
        notes.append(f"{len(pool) - len(placed)} candidates left out: {TITLES[kind]} not known")
    if num_chosen < len(placed):
        notes.append(f"{len(placed) - num_chosen} candidates left out: no evidence about their series; see luma next")
    return notes


def _not_comparable(setting: AdviceSetting) -> list[str]:
    """The number of own runs without a distance, and the first reason of each."""
    reasons = [row.why_not[0] for row in setting.own if row.why_not]
    if not reasons:
        return []
    runs = "run is" if len(reasons) == 1 else "runs are"
    return [f"{len(reasons)} own {runs} not comparable: {', '.join(sorted(set(reasons)))}"]
