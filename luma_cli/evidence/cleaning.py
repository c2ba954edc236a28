"""Rules that read the columns of the published table: resolution, objective, head, scope. Pure functions of text.

The raw table was transcribed from papers, READMEs and model cards. These rules turn its free text into our lists; the
words as printed stay in a raw column wherever anything is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from luma_cli.evidence.evidence import Regime, Trust

OTHER = "other"
# Objectives as printed that are plainly one of `models/pretraining.toml`. Variants that nobody else published with
# (`mae (dvae token target)`, `cae v2 (clip target)`) are `other`: they are different checkpoints.
_SAME_OBJECTIVE = {
    **{each: each for each in (
        "beit", "beit3", "beitv2", "cae", "capi", "clip", "dino", "dinov2", "dinov3", "eva", "eva02", "ibot", "mae",
        "sam", "siglip", "siglip2", "simmim",
    )},
    "aim (autoregressive pixels)": "aim",
    "amoe/siglino (distill siglip2+dinov3)": "amoe",
    "beit (+sup ft)": "beit",
    **dict.fromkeys(("beitv2 (+21k sup ft)", "beitv2 + coco-stuff ft"), "beitv2"),
    **dict.fromkeys(("dfn clip", "metaclip"), "clip"),
    "dinov2 + depth-anything": "depth_anything",
    "dinov3 (distilled from 7b)": "dinov3",
    "dune (heterogeneous multi-teacher distill)": "dune",
    **dict.fromkeys(("fcmae (+in1k sup ft)", "fcmae (+in22k sup ft)"), "fcmae_ft"),
    "franca (nested matryoshka clustering ssl)": "franca",
    "hpm (mae + hard patch mining)": "hpm",
    "i-jepa": "ijepa",
    "internvit (clip-style)": "internvit",
    "joint multi-modal -> supervised": "m3i",
    "lingbot-vision (dino+ibot+boundary)": "lingbot",
    "moco v3": "moco_v3",
    "pe-core (clip-style)": "pe_core",
    "pe-spatial": "pe_spatial",
    "proteus (distilled dinov2 on imagenet-1k)": "proteus",
    "radio (multi-teacher distill)": "radio",
    "supervised (ssld distill)": "ssld",
    **dict.fromkeys(("tinymim (distilled mae)", "tinymim* (distilled mae, ft teacher)"), "tinymim"),
    "v-jepa 2.1": "vjepa2_1",
    "web-dino": "web_dino",
}  # fmt: skip
# The first ViT weights of timm 0.1 are Google's: ImageNet-21k, then fine-tuned on ImageNet-1k.
_SUPERVISED = {"imagenet-1k": "supervised_in1k", "imagenet-22k": "supervised_in21k", "imagenet-21k": "supervised_in21k",
               "jx vit checkpoint (timm v0.1)": "supervised_in21k"}  # fmt: skip
# Heads as they are written elsewhere, without spaces, hyphens and underscores.
_SPELLED_HEADS = {
    **{name.replace("-", ""): name for name in ("semantic-fpn", "vit-adapter+upernet", "vit-adapter+mask2former",
       "segmenter-mask", "segmenter-linear", "setr-naive", "setr-pup", "setr-mla", "kmax-deeplab", "segnext-ham",
       "linear-4-layers", "mask2former", "maskformer", "segformer", "upernet")},
    **dict.fromkeys(("uper", "uperhead", "upernethead"), "upernet"),
    **dict.fromkeys(("fpn", "semfpn", "fpnhead"), "semantic-fpn"),
    **dict.fromkeys(("linear", "linearprobe", "linearprobing", "linearhead", "lineareval"), "linear"),
    **dict.fromkeys(("m2f", "mask2formerhead"), "mask2former"),
    **dict.fromkeys(("segformerhead", "segformermlp"), "segformer"),
    **dict.fromkeys(("deeplabv3+", "deeplabv3plus"), "deeplabv3plus"),
    "psp": "pspnet", "ocr": "ocrnet",
}  # fmt: skip
_EXTRA_DATA = ("additional seg data", "pseudo-labels", "coco-stuff")
_MORE_CLASSES = re.compile(r"2[12]k")
_FROZEN_HEADS = ("logreg", "k-nn", "in-context")
_SIZE = re.compile(r"([1-9]\d*)(?:\s*[x×]\s*([1-9]\d*))?")
# Whose weights they are, where a name does not say: `vit_base_patch16 (MAE, dVAE target)`.
_QUALIFIER = re.compile(r"\s*\(.*\)\s*$")


@dataclass(frozen=True, slots=True)
class PublishedHead:
    """A head's normalised name, its regime, and a recipe of its own where the row names one."""

    name: str
    regime: Regime
    recipe: str = ""


def resolution(text: str) -> tuple[int | None, int | None]:
    """Height and width in pixels; one number is a square; blank stays blank.

    >>> resolution("512x1024"), resolution("896"), resolution("")
    ((512, 1024), (896, 896), (None, None))
    """
    if not text.strip():
        return None, None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"resolution {text!r} is neither `512`, `512x1024` nor blank")
    height = int(match[1])
    return height, int(match[2]) if match[2] else height


def objective(raw: str, data: str, backbone: str) -> str:
    """The pretraining objective from our list; `other` for anything that is not plainly one of them.

    >>> objective("supervised", "ImageNet-22k", "swin_large"), objective("bootmae", "ImageNet-1k", "vit_base_patch16")
    ('supervised_in21k', 'other')
    """
    if backbone.startswith("deit3"):
        return "deit3"
    if raw == "supervised":
        return _SUPERVISED.get(data.split(" + ")[0].strip().lower(), OTHER)
    return _SAME_OBJECTIVE.get(raw.lower(), OTHER)


def supervised(raw: str, data: str, backbone: str) -> str:
    """The objective of the word `supervised`: labels of ImageNet-1k, or 21k where words or name say so; else `other`.

    >>> supervised("supervised", "", "swin_tiny"), supervised("supervised", "JFT", "efficientnet_b7")
    ('supervised_in1k', 'other')
    """
    if not raw.lower().startswith("supervised") or (data and "imagenet" not in data.lower()):
        return OTHER
    return "supervised_in21k" if _MORE_CLASSES.search(f"{raw} {data} {backbone}".lower()) else "supervised_in1k"


def extra_data(raw: str, data: str) -> str:
    """Labelled or pseudo-labelled images beyond pretraining and the dataset itself, as printed; else empty."""
    text = f"{raw} {data}".lower()
    return (data or raw) if any(word in text for word in _EXTRA_DATA) else ""


def head(raw: str, notes: str) -> PublishedHead:
    """The head without its qualifiers.

    >>> head("linear (frozen, 4 layers, +ms)", "").name, head("eomt (LightlyTrain)", "").recipe
    ('linear-4-layers', 'lightly-train')
    >>> head("UPerHead", "").name, head("Semantic FPN", "").name
    ('upernet', 'semantic-fpn')
    """
    lower = raw.lower()
    frozen = "frozen" in lower or "probe" in lower or lower.startswith(_FROZEN_HEADS)
    name = _QUALIFIER.sub("", lower).strip()
    name = _SPELLED_HEADS.get(re.sub(r"[\s_-]", "", name), name)
    name = {"not stated": "", "linear/dpt probe": "linear-or-dpt", "eomt + algm token merging": "eomt-algm"}.get(
        name, name
    )
    if "4 layers" in lower:
        name = "linear-4-layers"
    return PublishedHead(name, "frozen" if frozen else "fine-tuned", _recipe(lower, notes.lower()))


def _recipe(head_raw: str, notes: str) -> str:
    if "lightlytrain" in head_raw:
        return "lightly-train"
    if "low-res" in notes:
        standardised = "" if "standardization" not in notes else (
            ", standardised" if "standardization=true" in notes else ", not standardised")  # fmt: skip
        return f"low-resolution protocol{standardised}"
    return ""


def trust(notes: str, source: str) -> Trust:
    """Whether the row is the source's own table, a copy of it, or leans on something that we inferred."""
    text = f"{notes} {source}".lower()
    if "secondary" in text or "as transcribed" in text:
        return "secondary"
    return "inferred" if any(word in text for word in ("inferred", "assumed", "not stated")) else "primary"


def timm_name(backbone: str, in_timm: Callable[[str], bool]) -> tuple[str, str, str]:
    """Name in timm, its architecture, and how it was found: `tag`, `arch`, or `no` with both empty.

    A qualifier in brackets (`swin_base (SimMIM)`) means other weights, so only the architecture can be timm's.
    """
    bare = _QUALIFIER.sub("", backbone).strip()
    architecture = bare.split(".")[0]
    if bare == backbone and "." in bare and in_timm(bare):
        return bare, architecture, "tag"
    if in_timm(architecture):
        return architecture, architecture, "arch"
    return "", "", "no"


def schedule(text: str) -> str:
    """Iterations spelled one way: `160k iters` and `160k` become `160000 iters`.

    >>> schedule("160k"), schedule("16 epochs, bs16")
    ('160000 iters', '16 epochs, bs16')
    """
    match = re.fullmatch(r"(\d+)k(?: iters)?", text.strip())
    return f"{int(match[1]) * 1000} iters" if match else text.strip()
