"""Parameters that never run are removed, and nothing else changes."""

from __future__ import annotations

import pytest
import timm
import torch
from tiny_backbones import KINDS, TIMM, make, shared, spec

from luma_cli.backbone.create import create_backbone

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
