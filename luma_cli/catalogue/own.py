"""Architectures that timm lacks and luma builds itself (`luma_cli/isotropic`): their names, without torch.

Each is a ViT at patch 16 and 224 pixels in one of four sizes, with the widths and depths of DeiT and ViT.
"""

from __future__ import annotations

from dataclasses import dataclass

from luma_cli.catalogue.spec import IndexEntry

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
# What replaces attention or the FFN, and the class of the model, built by `luma_cli/isotropic/entrypoints.py`.
_MIXERS = (
    *("hydra", "linear", "performer", "linformer", "synthesizer", "synthesizer_fr", "nystrom"),
    *("fnet", "gfnet", "afno"),
)
MIXER_KINDS = {**{f"{mixer}_vit": "vit.IsotropicViT" for mixer in _MIXERS}, "tome_vit": "merging.ToMeViT"}
EXPERT_KINDS = dict.fromkeys(("switch_vit", "vmoe_vit", "softmoe_vit"), "mixtures.ExpertViT")
KINDS = {**MIXER_KINDS, **EXPERT_KINDS}


def architecture(kind: str, size: str) -> str:
    """The name of `kind` in `size`.

    >>> architecture("hydra_vit", "base")
    'hydra_vit_base_patch16_224'
    """
    return f"{kind}_{size}_patch{PATCH_SIZE}_{INPUT_SIZE}"


def entries() -> dict[str, IndexEntry]:
    """Every own architecture as an entry of the index; none has public weights."""
    named = {architecture(kind, size): cls for kind, cls in KINDS.items() for size in SIZES}
    return {name: IndexEntry(name, MODULE, cls, input_size=INPUT_SIZE) for name, cls in named.items()}
