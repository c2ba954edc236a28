"""`luma scaling` as functions: the law on evidence and own runs, and how to spend k times more compute.

The second gives a concrete next model and resolution by enumeration, three answers side by side, each named for what it
rests on: the scaling exponents within the series, the predicted accuracy within the series, and the predicted accuracy
over every candidate.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from luma_cli.accuracy.sightings import AccuracyModel, Prediction
from luma_cli.advise import candidates as shipped
from luma_cli.advise.candidates import NUM_CLASSES, Candidate, subject
from luma_cli.advise.fronts import TIE_MIOU
from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.catalogue.spec import Family
from luma_cli.errors import UnknownName, UsageError
from luma_cli.evidence.table import load_evidence
from luma_cli.scaling.answer import Scaling
from luma_cli.scaling.answer import scaling as fit_scaling
from luma_cli.scaling.series import Model, Target, next_model, target
from luma_cli.store import database as files
from luma_cli.store.runs import scored_runs

# Classes of a dataset that is the user's own, for the head's share of the cost: well below 1% of it up to 150.
_USUAL_CLASSES = 150
# Card and pretraining of the model that a family's law is for: with series of sizes, and of about the size of ViT-B.
_STARTS = {
    "": ("vit_b", "dinov3"),
    "convolutional": ("convnext_b", "dinov3"),
    "hierarchical": ("swin_b", "supervised_in21k"),
    "hybrid": ("caformer_b36", "supervised_in21k"),
}


def scaling(
    dataset: str = "ade20k",
    *,
    start: str = "",
    family: str = "",
    pretraining: str = "",
    own_only: bool = False,
    head: HeadName = "luma",
    database: Path | None = None,
) -> Scaling:
    """The scaling law of a dataset near the model `start`, or why there is none.

    start: as `vit_b.dinov3@512`; empty for a model of the usual size of that family and pretraining, if there is one.
    database: the store with the user's own runs; $LUMA_DB or the data folder when None. Raises UsageError for a
    dataset, family, pretraining or start that is none, StoreError for a store that cannot be read.

    >>> scaling().split.size
    0.83
    """
    from luma_cli.catalogue.pretraining import check_objective

    if family and family not in get_args(Family):
        raise UsageError(f"family {family!r} is not known; use one of {', '.join(get_args(Family))}")
    if pretraining:
        check_objective("--pretraining", pretraining)
    with files.reading(database) as connection:
        runs = scored_runs(connection)
    known = sorted({*NUM_CLASSES, *(run.base for run in runs)})
    if dataset not in known:
        raise UsageError(f"dataset {dataset!r} is not known, expected one of {', '.join(known)}; try --dataset ade20k")
    config = HeadConfig(name=head, num_classes=NUM_CLASSES.get(dataset, _USUAL_CLASSES))
    start = start or usual_start(family, pretraining)
    evidence = load_evidence(database, own=False)
    return fit_scaling(
        evidence, runs, dataset, start, config, family=family, pretraining=pretraining, own_only=own_only
    )


def usual_start(family: str, pretraining: str) -> str:
    """What the law is for unless the user names a model: one that passes the filters, so that its runs do too.

    >>> usual_start("", ""), usual_start("convolutional", "")
    ('vit_b.dinov3@512', 'convnext_b.dinov3@512')
    """
    from luma_cli.catalogue.names import resolve

    card, usual = _STARTS.get(family, _STARTS[""])
    name = f"{card}.{pretraining or usual}"
    try:
        resolve(name)
    except UnknownName:
        name = f"{card}.{usual}"
    return f"{name}@512"


@dataclass(frozen=True, slots=True)
class Spending:
    """One way to spend the compute. prediction: None without a model of accuracy. rests_on: what chose it."""

    rests_on: str
    name: str
    resolution: int
    macs: int
    command: str
    prediction: Prediction | None = None

    def __json__(self) -> dict[str, Any]:
        """The model, its cost, and its predicted mIoU."""
        return {
            "rests_on": self.rests_on,
            "backbone": self.name,
            "resolution": self.resolution,
            "macs": self.macs,
            "prediction": self.prediction.to_json() if self.prediction else None,
            "command": self.command,
        }


@dataclass(frozen=True, slots=True)
class MoreCompute:
    """The answer. start: what is there now. wanted: the continuous optimum. cheapest: the next dearer model of the
    series where nothing is within the budget; its multiply-adds say how much more is needed. scale_note: what scale the
    predicted mIoU is on, None without a model of accuracy.
    """

    start: Spending
    wanted: Target = field(metadata={"json": "target"})
    spendings: tuple[Spending, ...]
    cheapest: Model | None = field(metadata={"json": "cheapest_larger"})
    scale_note: str | None = field(metadata={"json": "scale"})


def spend(answer: Scaling, factor: float, *, head: HeadName = "luma", database: Path | None = None) -> MoreCompute:
    """How to spend `factor` times the compute of the model that the answer is for, over the shipped candidates.

    Raises UsageError unless factor is above 1.
    """
    from luma_cli.accuracy.model import load_model

    dataset = answer.dataset if answer.dataset in NUM_CLASSES else "ade20k"
    model = load_model(load_evidence(database))
    return more_compute(answer, factor, shipped.load(dataset, head=head), model, head)


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
    series, at, dataset = answer.series, answer.at.model, answer.dataset
    wanted = target(answer.at, factor, answer.split)
    law = answer.fit.law if answer.fit is not None and answer.measured else None
    by_rule = next_model(series, answer.at, wanted, law)
    by_key = {(each.name, each.resolution): each for each in candidates}
    within = [each for each in candidates if each.public_weights and each.macs and at.macs < each.macs <= wanted.macs]
    now = by_key.get((at.name, at.resolution))
    by_exponents = by_key.get((by_rule.name, by_rule.resolution)) if by_rule else None
    predicted = _predict({*within, *filter(None, (now, by_exponents))}, dataset, model, head)

    def spending(rests_on: str, on: Model, candidate: Candidate | None) -> Spending:
        said = predicted.get(candidate) if candidate else None
        return Spending(rests_on, on.name, on.resolution, on.macs, on.train_line(dataset), said)

    found = [spending(f"exponents: {answer.split_source}", by_rule, by_exponents)] if by_rule else []
    same = [each for each in within if each.name in series.sizes]
    for rests_on, some in (("predicted accuracy, this series", same), ("predicted accuracy, any backbone", within)):
        best = _best({each: predicted[each] for each in some if each in predicted})
        if best is not None:
            found.append(spending(rests_on, Model(best.name, best.resolution, 0.0, best.macs or 0), best))
    larger = series.public(at.macs)
    return MoreCompute(
        start=spending("now", at, now),
        wanted=wanted,
        spendings=tuple(found),
        cheapest=None if found or not larger else larger[0],
        scale_note=model.scale_note if model else None,
    )


def _predict(
    candidates: Collection[Candidate], dataset: str, model: AccuracyModel | None, head: str
) -> dict[Candidate, Prediction]:
    """The prediction of each; empty without a model."""
    if model is None or not candidates:
        return {}
    ordered = sorted(candidates, key=lambda each: each.key)
    return dict(zip(ordered, model.predict([subject(each, dataset, head) for each in ordered]), strict=True))


def _best(predicted: Mapping[Candidate, Prediction]) -> Candidate | None:
    """The best prediction that the evidence supports; within a tie the cheaper. None where nothing is supported."""
    supported = {each: found.miou_percent for each, found in predicted.items() if not found.extrapolated}
    tied = [each for each, miou in supported.items() if miou >= max(supported.values()) - TIE_MIOU]
    return min(tied, key=lambda each: (each.macs or 0, each.key), default=None)
