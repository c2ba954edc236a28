"""Kinds of pretraining objective: what an unseen one is expected to resemble."""

from __future__ import annotations

from typing import Literal

from luma_cli.accuracy.subject import Subject

Kind = Literal["labels", "masked", "self-distilled", "language", "mixed"]

_MASKED = ("mae", "mae_ft", "beit", "beitv2", "eva", "eva02", "fcmae_ft", "fcmae", "cae", "simmim", "hpm", "tinymim")
_SELF_DISTILLED = ("dino", "ibot", "dinov2", "dinov3", "lingbot", "capi", "franca", "moco_v3", "web_dino")
_NAMED: dict[str, Kind] = {
    **dict.fromkeys(("supervised_in1k", "supervised_in21k", "deit", "deit3", "distilled_in1k", "ssld"), "labels"),
    **dict.fromkeys(_MASKED, "masked"),
    **dict.fromkeys(_SELF_DISTILLED, "self-distilled"),
    **dict.fromkeys(("clip", "siglip", "siglip2", "pe_core", "beit3", "internvit"), "language"),
}
# Words of objectives that have no name of their own, the first that occurs decides.
_WORDS: tuple[tuple[str, Kind], ...] = (
    *((word, "masked") for word in ("mae", "cae", "simmim", "mim", "hpm", "peco", "mvp", "milan", "data2vec", "token")),
    *((word, "self-distilled") for word in ("moco", "moby", "dino", "capi", "franca", "ibot")),
    *((word, "language") for word in ("clip", "siglip", "image-text", "caption")),
)


def kind_of(subject: Subject) -> Kind:
    """The kind of the subject's objective; `mixed` for several teachers and whatever is not recognised."""
    if subject.pretraining in _NAMED:
        return _NAMED[subject.pretraining]
    text = subject.pretraining_raw.lower()
    return next((kind for word, kind in _WORDS if word in text), "mixed")
