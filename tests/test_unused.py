"""Parameters that never run are removed, and nothing else changes."""

from __future__ import annotations

import pytest
import timm
import torch
from tiny_backbones import KINDS, TIMM, make, shared, spec
from torch import nn

from luma_cli.backbone.create import create_backbone, wrap

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
UNUSED = {
    "cait_xxs24_224": (SMALL, "blocks_token_only.0.attn.q.weight"),
    "xcit_nano_12_p16_224": (SMALL, "cls_attn_blocks.0.attn.q.weight"),
    "test_efficientnet": ({}, "conv_head.weight"),
    "vit_base_patch16_siglip_224": (SMALL, "attn_pool.latent"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_what_never_runs_is_gone(name: str) -> None:
    arguments, parameter = UNUSED[name]
    backbone = create_backbone(spec(name, arguments=arguments), 64)
    assert parameter in backbone.pruned
    assert f"model.{parameter}" not in backbone.state_dict()
    full = timm.create_model(name, num_classes=0, **({"img_size": 64, **arguments} if arguments else {}))
    kept, removed = sum(p.numel() for p in backbone.parameters()), backbone.num_pruned
    assert kept + removed == sum(p.numel() for p in full.parameters())
    assert removed > 0


@pytest.mark.parametrize("name", [*UNUSED, "test_vit", "swin_tiny_patch4_window7_224", "efficientvim_m1"])
def test_the_map_is_bit_identical_to_timm_s(name: str) -> None:
    arguments = UNUSED[name][0] if name in UNUSED else TIMM[name][1]
    backbone = create_backbone(spec(name, arguments=arguments), 64, seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        size = {} if name in ("test_efficientnet", "efficientvim_m1") else {"img_size": 64}
        full = timm.create_model(name, num_classes=0, **size, **arguments).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = full.forward_intermediates(images, indices=1, intermediates_only=True, output_fmt="NCHW")[-1]
        assert torch.equal(backbone(images), expected)


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_left_is_run(name: str) -> None:
    """By gradients: what is left is reached by the map, by the queries or by the final norm."""
    backbone = make(name)
    images = torch.randn(1, 3, backbone.resolution, backbone.resolution)
    features = backbone(images)
    loss = features.sum() + backbone.query_ffn(torch.randn(1, 3, backbone.query_width)).sum()
    if backbone.has_final_norm:
        loss = loss + backbone.norm_tokens(features.flatten(2).transpose(1, 2)).sum()
    loss.backward()
    assert [key for key, parameter in backbone.named_parameters() if parameter.grad is None] == []


def test_meta_and_real_agree() -> None:
    real = shared("test_vit")
    meta = create_backbone(spec("test_vit"), 64, device="meta")
    assert {key: value.shape for key, value in meta.state_dict().items()} == {
        key: value.shape for key, value in real.state_dict().items()
    }
    assert (meta.width, meta.grid, meta.stride, meta.pruned) == (real.width, real.grid, real.stride, real.pruned)
    assert {parameter.device.type for parameter in meta.parameters()} == {"meta"}


FROZEN = {"test_vit": {}, "vit_base_patch16_224": SMALL, "eva02_tiny_patch14_224": {**SMALL, "patch_size": 16}}


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_model_keeps_its_position_embedding(name: str) -> None:
    """`if self.pos_embed is None` lets a model run without it: only a graph that sees frozen parameters can tell."""
    model = timm.create_model(name, num_classes=0, img_size=64, **FROZEN[name]).eval().requires_grad_(False)
    images = torch.randn(1, 3, 64, 64)
    expected = model.forward_intermediates(images, indices=1, intermediates_only=True)[-1]
    backbone = wrap(model, spec(name), 64)
    assert "pos_embed" not in backbone.pruned
    assert torch.equal(backbone(images), expected)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


class Detached(nn.Module):
    """A map from a part that runs without gradients, its scale used by name alone, and a layer that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.shift = nn.Parameter(torch.ones(8, 1, 1))
        self.scale = nn.Conv2d(8, 8, 1)
        self.classifier = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            features: torch.Tensor = self.patches(images)
            if self.shift is not None:
                features = features + self.shift
            if isinstance(self.scale, nn.Conv2d):
                features = nn.functional.conv2d(features, self.scale.weight)
        return features


def test_what_the_graph_cannot_see_is_kept_because_the_map_would_change() -> None:
    model = Detached().eval()
    images = torch.randn(1, 3, 64, 64)
    expected = model(images)
    assert torch.equal(wrap(model, spec("detached"), 64)(images), expected)
    assert model.shift is not None


def test_wrapping_inside_inference_mode_prunes_the_same() -> None:
    usual = wrap(timm.create_model("test_vit3", num_classes=0, img_size=64), spec("test_vit3"), 64)
    model = timm.create_model("test_vit3", num_classes=0, img_size=64)
    with torch.inference_mode():
        assert wrap(model, spec("test_vit3"), 64).pruned == usual.pruned
