"""Small builds of every kind of transformer whose blocks queries can join, with scales large enough to be seen."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.spec import BackboneSpec

SIZE = 64
_SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 3, "num_heads": 2}

# architecture: further arguments of its constructor
KINDS: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224": {},  # class token
    "deit3_small_patch16_224": {"init_values": 0.5},  # LayerScale
    "deit_tiny_distilled_patch16_224": {},  # two prefix tokens
    "vit_small_patch14_reg4_dinov2": {"init_values": 0.5},  # registers
    "vit_base_patch16_clip_224": {},  # norm before the blocks
    "vit_base_patch16_siglip_224": {},  # no prefix token
    "vit_small_patch16_18x2_224": {},  # parallel attentions
    "vit_base_patch16_xp_224": {},  # norms after the branches, none at the end
    "vit_small_patch16_dinov3": {"init_values": 0.5},  # rotations, gammas
    "eva02_base_patch14_224": {"init_values": 0.5},  # rotations beside learned positions, SwiGLU
    "eva_large_patch14_196": {},  # Eva without rotations
    "vit_small_patch16_rope_mixed_224": {},  # rotations of every block and head
    "vit_pe_core_small_patch16_384": {},  # rotations, norm before the blocks
    "vit_base_patch16_sapiens2": {"num_kv_heads": (2, 1, 2)},  # fewer keys than queries in one block
}
SCALED = tuple(name for name, arguments in KINDS.items() if "init_values" in arguments)


def make(name: str, seed: int = 0) -> Backbone:
    """A fresh small backbone of this kind, redrawn: vectors (norms, scales, biases) large, matrices keeping sizes.

    With the initial weights attention is nearly uniform and branches nearly nothing, and much could be lost unseen.
    """
    spec = BackboneSpec(name, name, name, rule={"arguments": {**_SMALL, **KINDS[name]}})
    backbone = create_backbone(spec, SIZE, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in backbone.parameters():
            redraw(parameter, generator)
    return backbone


def redraw(parameter: torch.Tensor, generator: torch.Generator) -> None:
    """New values in place: vectors from 0.5 to 1.5, matrices and filters normal, keeping the size of their input."""
    if parameter.dim() == 1:
        parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    elif parameter.dim() > 1:
        fan_in = parameter[0].numel() if parameter.shape[0] > 1 else 1
        parameter.copy_(1.5 * torch.randn(parameter.shape, generator=generator) / fan_in**0.5)


@cache
def shared(name: str) -> Backbone:
    """The same backbone for every test that only reads it."""
    return make(name)
