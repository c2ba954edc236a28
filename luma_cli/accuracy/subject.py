"""What accuracy is predicted of: one backbone with its pretraining and head, on one dataset, under one protocol."""

from __future__ import annotations

from dataclasses import dataclass

from luma_cli.catalogue.spec import Family
from luma_cli.evidence.evidence import Eval, Regime


@dataclass(frozen=True, slots=True)
class Subject:
    """One segmenter and the protocol of its score.

    backbone: as the user or the source names it. architecture: timm's name, or the normalised one where timm has none.
    lineage: the series it belongs to, e.g. `swin`, `convnext`, `mit`, finer than family; empty when not recognised.
    pretraining: objective from `models/pretraining.toml`, or `other`. pretraining_data: as printed, empty if unknown.
    extra_data: whether further labelled images were seen before the training scored here. params: of the backbone
    alone, None when not known. height, width: training crop in pixels, None when not stated.
    """

    dataset: str
    backbone: str
    architecture: str
    lineage: str = ""
    family: Family = "unknown"
    pretraining: str = "other"
    pretraining_data: str = ""
    extra_data: bool = False
    params: float | None = None
    height: int | None = None
    width: int | None = None
    head: str = "luma"
    recipe: str = ""
    regime: Regime = "fine-tuned"
    eval: Eval = "single-scale"
