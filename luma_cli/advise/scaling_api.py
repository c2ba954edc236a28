"""`luma scaling` as a function: evidence and own runs read from the store, the law, and how to spend more compute."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from luma_cli.advise import candidates
from luma_cli.advise.candidates import NUM_CLASSES
from luma_cli.advise.more_compute import MoreCompute, more_compute
from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.catalogue.spec import Family
from luma_cli.errors import UnknownName, UsageError
from luma_cli.evidence.own_runs import OwnRun, from_scored
from luma_cli.evidence.table import load_evidence
from luma_cli.scaling.answer import Scaling
from luma_cli.scaling.answer import scaling as fit_scaling
from luma_cli.store import database as files
from luma_cli.store.runs import scored_runs

if TYPE_CHECKING:
    from luma_cli.accuracy.sightings import AccuracyModel

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
    runs = _own_runs(database)
    known = sorted({*NUM_CLASSES, *(run.base for run in runs)})
    if dataset not in known:
        raise UsageError(f"dataset {dataset!r} is not known, expected one of {', '.join(known)}; try --dataset ade20k")
    config = HeadConfig(name=head, num_classes=NUM_CLASSES.get(dataset, _USUAL_CLASSES))
    evidence = load_evidence(database, own=False)
    start = start or usual_start(family, pretraining)
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


def spend(
    answer: Scaling,
    factor: float,
    *,
    head: HeadName = "luma",
    model: AccuracyModel | None = None,
    database: Path | None = None,
) -> MoreCompute:
    """How to spend `factor` times the compute of the model that the answer is for, over the shipped candidates.

    model: the learned one when None. Raises UsageError unless factor is above 1.
    """
    from luma_cli.accuracy.model import load_model

    dataset = answer.dataset if answer.dataset in NUM_CLASSES else "ade20k"
    predictor = model or load_model(load_evidence(database))
    return more_compute(answer, factor, candidates.load(dataset, head=head), predictor, head)


def _own_runs(database: Path | None) -> list[OwnRun]:
    connection = files.open_read(database)
    if connection is None:
        return []
    with closing(connection):
        return from_scored(scored_runs(connection))
