"""What accuracy is predicted of: one backbone with its pretraining and head, on one dataset, under one protocol."""

from __future__ import annotations

from dataclasses import dataclass

from luma_cli.catalogue.spec import Family
from luma_cli.evidence.evidence import Eval, Regime

HERE = "measured here"


@dataclass(frozen=True, slots=True)
class Subject:
    """One segmenter and the protocol of its score.

    backbone: as the user or the source names it. checkpoint: key of its weights, e.g. `vit_base_patch16_224.mae`.
    architecture: timm's name, or the normalised one where timm has none. lineage: the series it belongs to, e.g.
    `swin`, `convnext`, `mit`, finer than family, empty when not recognised; year: when that was published.
    pretraining: objective from `models/pretraining.toml`, or `other`; pretraining_raw: as printed.
    pretraining_data: as printed, empty if unknown. extra_data: whether further labelled images were seen before the
    training scored here. params: of the backbone alone, None when not known; params_guessed: read off a size word.
    height, width: training crop in pixels, None when not stated. iterations: of the training, None for the usual
    number. source: whose table it stands in, own runs by default.
    """

    dataset: str
    backbone: str
    architecture: str
    checkpoint: str = ""
    lineage: str = ""
    family: Family = "unknown"
    year: int | None = None
    pretraining: str = "other"
    pretraining_raw: str = ""
    pretraining_data: str = ""
    extra_data: bool = False
    params: float | None = None
    params_guessed: bool = False
    height: int | None = None
    width: int | None = None
    head: str = "luma"
    recipe: str = ""
    regime: Regime = "fine-tuned"
    eval: Eval = "single-scale"
    iterations: int | None = None
    source: str = HERE

    @property
    def objective(self) -> str:
        """The objective, or what was printed where our list has none, in lower case."""
        return self.pretraining if self.pretraining != "other" else self.pretraining_raw.strip().lower() or "other"
