"""Kinds of pretraining objective: what an unseen one is expected to resemble."""

from __future__ import annotations

from typing import Literal

from luma_cli.accuracy.subject import Subject

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
