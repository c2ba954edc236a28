"""I have k times more compute: how to spend it. A concrete next model and resolution, by discrete enumeration.

Three answers side by side, each named for what it rests on: the scaling exponents within the series, the predicted
accuracy within the series, and the predicted accuracy over every candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luma_cli.accuracy.sightings import AccuracyModel, Prediction
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.subjects import subject
from luma_cli.advise.ties import TIE_MIOU
from luma_cli.scaling.answer import Scaling
from luma_cli.scaling.next_model import Target, cheapest_larger, next_model, target
from luma_cli.scaling.series import Model


@dataclass(frozen=True, slots=True)
class Spending:
    """One way to spend the compute. prediction: None without a model of accuracy. rests_on: what chose it."""

    rests_on: str
    name: str
    resolution: int
    macs: int
    prediction: Prediction | None = None

    def to_json(self, dataset: str) -> dict[str, Any]:
        """The model, its cost, and its predicted mIoU."""
        return {
            "rests_on": self.rests_on,
            "backbone": self.name,
            "resolution": self.resolution,
            "macs": self.macs,
            "prediction": self.prediction.to_json() if self.prediction else None,
            "command": Model(self.name, self.resolution, 0.0, self.macs).train_line(dataset),
        }


@dataclass(frozen=True, slots=True)
class MoreCompute:
    """The answer. start: what is there now. wanted: the continuous optimum. cheapest: the next dearer model of the
    series where nothing is within the budget; its multiply-adds say how much more is needed. scale_note: what scale the
    predicted mIoU is on, empty without a model of accuracy.
    """

    start: Spending
    wanted: Target
    spendings: tuple[Spending, ...]
    cheapest: Model | None
    scale_note: str = ""

    def to_json(self, dataset: str) -> dict[str, Any]:
        """What `luma scaling --more` prints."""
        return {
            "start": self.start.to_json(dataset),
            "target": self.wanted.to_json(),
            "spendings": [each.to_json(dataset) for each in self.spendings],
            "scale": self.scale_note or None,
            "cheapest_larger": self.cheapest.to_json() if self.cheapest else None,
        }


def more_compute(
    answer: Scaling,
    factor: float,
    candidates: Sequence[Candidate],
    model: AccuracyModel | None = None,
    head: str = "luma",
) -> MoreCompute:
    """How to spend `factor` times the compute of `answer.at`.

    candidates: with public weights or not; those without are left out. model: predicts accuracy; None leaves the
    answers that rest on it out. Raises UsageError unless factor is above 1.
    """
    at = answer.at.model
    wanted = target(answer.at, factor, answer.split)
    law = answer.fit.law if answer.fit is not None and answer.measured else None
    by_rule = next_model(answer.series, answer.at, wanted, law)
    within = [each for each in candidates if each.public_weights and each.macs and at.macs < each.macs <= wanted.macs]
    same = [each for each in within if each.name in answer.series.sizes]
    start = Spending("now", at.name, at.resolution, at.macs)
    rule = f"exponents: {answer.split_source}"
    found = [Spending(rule, by_rule.name, by_rule.resolution, by_rule.macs)] if by_rule else []
    if model is not None:
        found += _by_accuracy("predicted accuracy, this series", same, answer.dataset, model, head)
        found += _by_accuracy("predicted accuracy, any backbone", within, answer.dataset, model, head)
    names = {(each.name, each.resolution): each for each in candidates}
    return MoreCompute(
        start=_predicted(start, names, answer.dataset, model, head),
        wanted=wanted,
        spendings=tuple(_predicted(each, names, answer.dataset, model, head) for each in found),
        cheapest=None if found else cheapest_larger(answer.series, answer.at),
        scale_note=model.scale_note if model else "",
    )


def _by_accuracy(
    rests_on: str, candidates: Sequence[Candidate], dataset: str, model: AccuracyModel, head: str
) -> list[Spending]:
    """The best prediction that the evidence supports; within a tie the cheaper. Empty where nothing is supported."""
    predictions = _predict(candidates, dataset, model, head)
    pairs = [(each, found) for each, found in zip(candidates, predictions, strict=True) if not found.extrapolated]
    if not pairs:
        return []
    best = max(found.miou_percent for _, found in pairs)
    tied = [(each, found) for each, found in pairs if found.miou_percent >= best - TIE_MIOU]
    each, found = min(tied, key=lambda pair: (pair[0].macs or 0, pair[0].key))
    return [Spending(rests_on, each.name, each.resolution, each.macs or 0, found)]


def _predicted(
    spending: Spending,
    candidates: Mapping[tuple[str, int], Candidate],
    dataset: str,
    model: AccuracyModel | None,
    head: str,
) -> Spending:
    """The spending with its predicted mIoU, where there is a model and a candidate."""
    candidate = candidates.get((spending.name, spending.resolution))
    if model is None or candidate is None or spending.prediction is not None:
        return spending
    found = _predict([candidate], dataset, model, head)[0]
    return Spending(spending.rests_on, spending.name, spending.resolution, spending.macs, found)


def _predict(candidates: Sequence[Candidate], dataset: str, model: AccuracyModel, head: str) -> list[Prediction]:
    subjects = [subject(each, dataset, head) for each in candidates]
    return model.predict(subjects) if subjects else []
