"""Subjects of a prediction: one backbone with pretraining and head, on one dataset, under one protocol.

They come from rows of evidence, candidates' names or the user's words. An unseen pretraining objective is expected to
resemble its kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from luma_cli.accuracy.backbones import KnownBackbone, recognise
from luma_cli.catalogue.pretraining import load_objectives, objective_of
from luma_cli.catalogue.spec import Family
from luma_cli.evidence import cleaning
from luma_cli.evidence.evidence import Eval, Evidence, Regime

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


_LABELLED = re.compile(r"(?:in|imagenet)[-_ ]?(1|21|22)k")  # papers name supervised pretraining by its data alone
_ITERATIONS = re.compile(r"(\d+) iters")


def subject_of(
    name: str,
    dataset: str,
    *,
    resolution: int | tuple[int, int] | None = None,
    pretraining: str = "",
    pretraining_data: str = "",
    head: str = "luma",
    evaluation: Eval = "single-scale",
    regime: Regime = "fine-tuned",
    params: float | None = None,
) -> Subject:
    """The segmenter of a backbone in any spelling: timm's `architecture.tag`, a paper's name, a series with a size.

    resolution: side of a square crop, or height and width, in pixels. pretraining: an objective or words of a paper;
    read off the tag when empty. params: of the backbone, looked up when None.
    """
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    known = _at_any_size(name, dataset, pretraining, pretraining_data, head, evaluation, regime, params)
    return replace(known, height=height, width=width)


@cache
def _at_any_size(
    name: str,
    dataset: str,
    pretraining: str,
    pretraining_data: str,
    head: str,
    evaluation: Eval,
    regime: Regime,
    params: float | None,
) -> Subject:
    """All of `subject_of` but the crop: candidates stand at many."""
    kind = cleaning.head(head, "") if head != "luma" else cleaning.PublishedHead("luma", regime)
    return replace(
        _bare(dataset, name, params),
        pretraining=_objective(pretraining, pretraining_data, name),
        pretraining_raw=pretraining,
        pretraining_data=pretraining_data,
        extra_data=bool(cleaning.extra_data(pretraining, pretraining_data)),
        head=kind.name,
        recipe=kind.recipe,
        regime="frozen" if kind.regime == "frozen" else regime,
        eval=evaluation,
    )


def subject_of_row(row: Evidence) -> Subject:
    """The segmenter that a row of evidence is about."""
    if row.provenance == "own run":
        return _subject_of_own(row)
    iterations = _ITERATIONS.match(row.schedule)
    return replace(
        _bare(row.dataset, row.backbone, None),
        pretraining=row.pretraining or "other",
        pretraining_raw=row.pretraining_raw,
        pretraining_data=row.pretraining_data,
        extra_data=bool(row.extra_data),
        height=row.height,
        width=row.width,
        head=row.head or "not stated",
        recipe=_recipe(row),
        regime=row.regime,
        eval=row.eval,
        iterations=int(iterations[1]) if iterations else None,
        source=row.source,
    )


def _recipe(row: Evidence) -> str:
    """The recipe; self-training on a larger model's labels is one of its own: it lifts ViT-S by seven points."""
    taught = "pseudo-labels" if "pseudo-label" in row.extra_data else ""
    return ", ".join(filter(None, (row.recipe, taught)))


def _subject_of_own(row: Evidence) -> Subject:
    """An own run as a candidate is written, so that it speaks about that very candidate.

    The usual recipe is no recipe of its own and its length the usual one; whatever was changed is a recipe with a
    length, because a short trial must not move what is said of full trainings.
    """
    name = row.timm or row.backbone
    changed = row.recipe.removeprefix(HERE).removeprefix(": ")
    return replace(
        _bare(row.dataset, name, None),
        pretraining=row.pretraining or objective_of(name) or "other",
        height=row.height,
        width=row.width,
        head=row.head,
        recipe=f"{changed}, {row.schedule}" if changed else "",
        regime=row.regime,
        eval=row.eval,
    )


def _bare(dataset: str, name: str, params: float | None) -> Subject:
    """The subject as far as the backbone's name tells."""
    found: KnownBackbone = recognise(name)
    series = found.lineage
    return Subject(
        dataset=dataset,
        backbone=name,
        checkpoint=name,
        architecture=found.architecture,
        lineage=series.name if series else "",
        family=series.family if series else "unknown",
        year=series.year if series else None,
        params=params or found.params,
        params_guessed=params is None and found.size_origin == "by its size word",
    )


def _objective(text: str, data: str, name: str) -> str:
    """The objective of our list that the words mean, else the one of the tag, else `other`."""
    lower = text.strip().lower()
    if lower in _named_objectives():
        return _named_objectives()[lower]
    if (labelled := _LABELLED.fullmatch(lower)) is not None:
        return "supervised_in1k" if labelled[1] == "1" else "supervised_in21k"
    found = cleaning.objective(lower, data, name) if lower else "other"
    tagged = (objective_of(name) or "other") if "." in name else "other"
    if found != "other" or tagged != "other":
        return found if found != "other" else tagged
    return cleaning.supervised(lower, data, name)


@cache
def _named_objectives() -> Mapping[str, str]:
    """Name or alias -> name of the objective."""
    return {alias: each.name for each in load_objectives().values() for alias in (each.name, *each.aliases)}


Kind = Literal["labels", "masked", "self-distilled", "language", "mixed"]

_LABELS = (
    *("supervised_in1k", "supervised_in12k", "supervised_in21k", "weakly_supervised", "deit", "deit3", "ssld"),
    *("distilled_in1k", "distilled_in21k"),
)
_MASKED = (
    *("mae", "mae_ft", "beit", "beitv2", "eva", "eva02", "eva02_ft", "fcmae", "fcmae_ft", "cae", "simmim", "hpm"),
    "tinymim",
)
_SELF_DISTILLED = (
    *("dino", "ibot", "dinov2", "dinov3", "lingbot", "capi", "franca", "moco_v3", "web_dino", "seer"),
    *("depth_anything", "proteus", "amoe"),
)
_LANGUAGE = ("clip", "clip_ft", "siglip", "siglip2", "pe_core", "beit3", "internvit", "tipsv2", "florence2", "aimv2")
_MIXED = ("radio", "dune", "eupe", "m3i", "pe_spatial", "sam", "sam2", "aim", "ijepa", "vjepa2_1")
_NAMED: dict[str, Kind] = {
    **dict.fromkeys(_LABELS, "labels"),
    **dict.fromkeys(_MASKED, "masked"),
    **dict.fromkeys(_SELF_DISTILLED, "self-distilled"),
    **dict.fromkeys(_LANGUAGE, "language"),
    **dict.fromkeys(_MIXED, "mixed"),
}
# Words of objectives that have no name of their own, the first that occurs decides.
_WORDS: tuple[tuple[str, Kind], ...] = (
    *((word, "masked") for word in ("mae", "cae", "simmim", "mim", "hpm", "peco", "mvp", "milan", "data2vec", "token")),
    *((word, "self-distilled") for word in ("moco", "moby", "dino", "capi", "franca", "ibot")),
    *((word, "language") for word in ("clip", "siglip", "image-text", "caption")),
    *(("self-supervised", "self-distilled"), ("supervised", "labels")),
)


def kind_of(subject: Subject) -> Kind:
    """The kind of the subject's objective; `mixed` for several teachers and whatever is not recognised."""
    if subject.pretraining in _NAMED:
        return _NAMED[subject.pretraining]
    text = subject.pretraining_raw.lower()
    return next((kind for word, kind in _WORDS if word in text), "mixed")
