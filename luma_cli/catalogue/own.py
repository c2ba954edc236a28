"""Architectures that timm lacks and luma builds itself (`luma_cli/isotropic`): their names, without torch.

Each is a ViT at patch 16 and 224 pixels in one of four sizes (DeiT's and ViT's own widths and depths).
"""

from __future__ import annotations

from dataclasses import dataclass

from luma_cli.catalogue.index_entry import Entry

PATCH_SIZE, INPUT_SIZE = 16, 224
MODULE = "entrypoints"


@dataclass(frozen=True, slots=True)
class OwnSize:
    """width: channels. depth: blocks. num_heads: of the mixers that have heads."""

    width: int
    depth: int
    num_heads: int


SIZES = {
    "tiny": OwnSize(192, 12, 3),
    "small": OwnSize(384, 12, 6),
    "base": OwnSize(768, 12, 12),
    "large": OwnSize(1024, 24, 16),
}
# What stands in the place of attention or of the FFN; `luma_cli/isotropic/entrypoints.py` knows its class.
KINDS = (
    "hydra_vit",
    "linear_vit",
    "performer_vit",
    "linformer_vit",
    "synthesizer_vit",
    "synthesizer_fr_vit",
    "nystrom_vit",
    "fnet_vit",
    "gfnet_vit",
    "afno_vit",
    "tome_vit",
)
EXPERT_KINDS = ("switch_vit", "vmoe_vit", "softmoe_vit")
_CLASSES = {
    "tome_vit": "tome.ToMeViT",
    **dict.fromkeys(EXPERT_KINDS, "vit.ExpertViT"),
}  # the others are a vit.IsotropicViT


def architecture(kind: str, size: str) -> str:
    """The name of `kind` in `size`.

    >>> architecture("hydra_vit", "base")
    'hydra_vit_base_patch16_224'
    """
    return f"{kind}_{size}_patch{PATCH_SIZE}_{INPUT_SIZE}"


def entries() -> dict[str, Entry]:
    """Every own architecture, as the index has those of timm; none has public weights."""
    return {
        (name := architecture(kind, size)): Entry(name, MODULE, _class_of(kind), input_size=INPUT_SIZE)
        for kind in (*KINDS, *EXPERT_KINDS)
        for size in SIZES
    }


def _class_of(kind: str) -> str:
    return _CLASSES.get(kind, "vit.IsotropicViT")
