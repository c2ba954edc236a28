"""One small model for every kind of FFN in the rule table, built through timm with small constructor arguments."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from timm.models.metaformer import Attention, GroupNorm1, LayerNorm, LayerNorm2d, MetaFormer, Pooling
from torch import nn

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.create import create_backbone, wrap
from luma_cli.catalogue.spec import BackboneSpec

_SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}
_STAGES: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 2), "num_heads": (1, 1, 2, 2)}

# name: (resolution, constructor arguments, kind of FFN, whether it mixes positions)
TIMM: dict[str, tuple[int, dict[str, Any], str, bool]] = {
    "test_vit": (64, {}, "pre-norm", False),
    "vit_small_patch16_18x2_224": (64, _SMALL, "pre-norm", False),
    "samvit_base_patch16_224": (64, _SMALL, "pre-norm", False),
    "hiera_tiny_224": (64, {"embed_dim": 16, "stages": (1, 1, 1, 1)}, "pre-norm", False),
    "swin_tiny_patch4_window7_224": (64, _STAGES, "pre-norm", False),
    "test_maxvit": (64, {}, "pre-norm", False),
    "coat_lite_tiny": (64, {"serial_depths": (1, 1, 1, 1), "embed_dims": (16, 16, 16, 32)}, "pre-norm", False),
    "tnt_s_patch16_224": (
        64,
        {"embed_dim": 32, "inner_dim": 8, "depth": 2, "num_heads_outer": 2, "num_heads_inner": 2},
        "pre-norm",
        False,
    ),
    "switch_vit_tiny_patch16_224": (64, _SMALL, "mixture of experts", True),
    "vmoe_vit_tiny_patch16_224": (64, _SMALL, "mixture of experts", True),
    "beit_base_patch16_224": (64, _SMALL, "gamma", False),
    "vit_small_patch16_dinov3": (64, _SMALL, "gamma", False),
    "cait_xxs24_224": (64, _SMALL, "gamma", False),
    "xcit_nano_12_p16_224": (64, _SMALL, "gamma", False),
    "vit_relpos_small_patch16_rpn_224": (64, _SMALL, "post-norm", False),
    "swinv2_tiny_window8_256": (64, _STAGES, "post-norm", False),
    "swinv2_cr_tiny_ns_224": (64, _STAGES, "post-norm", False),
    "gemma4_vit_167m": (64, _SMALL, "sandwich norm", False),
    "test_convnext": (64, {}, "single residual", False),
    "convnextv2_atto": (64, {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)}, "single residual", True),
    "inception_next_atto": (64, {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 32)}, "single residual", False),
    "visformer_tiny": (64, {"embed_dim": 32, "depth": (1, 1, 1)}, "conv MLP", False),
    "repvit_m0_9": (64, {"embed_dim": (8, 16, 16, 32), "depth": (1, 1, 1, 1)}, "conv MLP", False),
    "levit_128s": (128, {"embed_dim": (16, 32, 32), "depth": (1, 1, 1), "num_heads": (2, 2, 2)}, "conv MLP", False),
    "levit_conv_128s": (
        128,
        {"embed_dim": (16, 32, 32), "depth": (1, 1, 1), "num_heads": (2, 2, 2)},
        "conv MLP",
        False,
    ),
    "efficientvim_m1": (64, {}, "gated conv MLP", False),
    "pvt_v2_b0": (
        64,
        {"embed_dims": (10, 20, 40, 64), "depths": (1, 1, 1, 1)},
        "FFN with depthwise convolution",
        True,
    ),
    "fastvit_t8": (
        64,
        {"embed_dims": (8, 16, 16, 32), "layers": (1, 1, 1, 1)},
        "FFN with depthwise convolution",
        True,
    ),
}
WRAPPED = ("poolformer", "caformer")
KINDS = (*TIMM, *WRAPPED)


def spec(name: str, **rule: Any) -> BackboneSpec:
    """A spec as the catalogue would resolve `name`."""
    return BackboneSpec(name, name, name, rule=rule)


def make(name: str, seed: int = 0) -> Backbone:
    """A fresh tiny backbone of this kind."""
    if name in WRAPPED:
        return wrap(_metaformer(name == "caformer", seed), spec(name), 64)
    resolution, arguments, _, _ = TIMM[name]
    return create_backbone(spec(name, **({"arguments": arguments} if arguments else {})), resolution, seed=seed)


@cache
def shared(name: str) -> Backbone:
    """The same tiny backbone for every test that only reads it."""
    return make(name)


def kind(name: str) -> tuple[str, bool]:
    """Kind of FFN expected of `name`, and whether it mixes positions."""
    return ("metaformer", name == "poolformer") if name in WRAPPED else TIMM[name][2:]


def _metaformer(attention: bool, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dims = (16, 16, 32, 32)
        if attention:
            mixers = [Pooling, Pooling, Attention, Attention]
            norms = [LayerNorm2d, LayerNorm2d, LayerNorm, LayerNorm]
            return MetaFormer(depths=(1, 1, 1, 1), dims=dims, token_mixers=mixers, num_classes=0, norm_layers=norms)
        return MetaFormer(depths=(1, 1, 1, 1), dims=dims, token_mixers=Pooling, num_classes=0, norm_layers=GroupNorm1)
