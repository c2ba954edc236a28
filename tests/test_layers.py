"""Every parameter learns at the rate of its block: EoMT's formula, on blocks as timm tells them."""

from __future__ import annotations

import pytest
import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import nn

from luma_cli.backbone.create import create_backbone, wrap
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.head.segmenter import own_spec
from luma_cli.train.optimiser import layers_of, scales

DECAY = 0.8


def meta(name: str, resolution: int = 224):
    return create_backbone(BackboneSpec(name, name, name), resolution, device="meta")


def by_eomt(name: str, depth: int) -> float:
    """A plain ViT's factor as EoMT's code has it: block i decay ** (L - 1 - i), norm 1, all else the first block's."""
    if name.startswith("blocks."):
        return DECAY ** (depth - 1 - int(name.split(".")[1]))
    return 1.0 if name.startswith("norm.") else DECAY ** (depth - 1)


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("test_vit", 6),
        ("vit_tiny_patch16_224", 12),
        ("vit_small_patch14_reg4_dinov2", 12),
        ("vit_large_patch16_224", 24),
        ("vit_small_patch16_dinov3", 12),
        ("eva02_tiny_patch14_224", 12),
        ("hydra_vit_tiny_patch16_224", 12),
        ("switch_vit_tiny_patch16_224", 12),
    ],
)
def test_plain_transformers_are_as_in_eomt(name: str, depth: int) -> None:
    found = scales(meta(name), DECAY)
    assert found == {parameter: pytest.approx(by_eomt(parameter, depth)) for parameter in found}
    assert found["patch_embed.proj.weight"] == pytest.approx(DECAY ** (depth - 1))


def test_a_giant_as_in_eomt_unless_it_is_stretched() -> None:
    giant = meta("vit_giant_patch14_reg4_dinov2")
    found = scales(giant, DECAY)
    assert found == {parameter: pytest.approx(by_eomt(parameter, 40)) for parameter in found}
    assert scales(giant, DECAY, over=24)["cls_token"] == pytest.approx(DECAY ** (39 * 24 / 40))


def test_joint_blocks_may_keep_the_full_rate() -> None:
    """EoMT's llrd_l2_enabled = False."""
    full = scales(meta("vit_small_patch16_dinov3"), DECAY, num_full=3)
    usual = scales(meta("vit_small_patch16_dinov3"), DECAY)
    joint = tuple(f"blocks.{index}." for index in (9, 10, 11))
    assert full == {name: 1.0 if name.startswith(joint) else each for name, each in usual.items()}


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "resnet18", "convnext_tiny", "eva02_tiny_patch14_224"],
)
def test_against_timm(name: str) -> None:
    """The same blocks at the same distances; timm gives the stem a rate of its own, EoMT the first block's."""
    backbone = meta(name)
    found = scales(backbone, DECAY)
    names = {id(parameter): key for key, parameter in backbone.model.named_parameters()}
    groups = param_groups_layer_decay(backbone.model, layer_decay=DECAY)
    theirs = {names[id(parameter)]: group["lr_scale"] for group in groups for parameter in group["params"]}
    assert found.keys() == theirs.keys()
    stem = min(theirs.values())
    for key, scale in theirs.items():
        assert found[key] == pytest.approx(scale / DECAY if scale == stem else scale), key


def test_deep_networks_have_the_decay_stretched() -> None:
    backbone = meta("convnext_base")
    found, layers = scales(backbone, DECAY, over=24), layers_of(backbone)
    assert max(layers.values()) == 35
    assert found == {name: pytest.approx(DECAY ** ((35 - layer) * 24 / 36)) for name, layer in layers.items()}
    assert min(found.values()) == pytest.approx(DECAY ** (35 * 24 / 36)) == pytest.approx(0.0055, abs=1e-4)
    assert found["stages.3.blocks.2.conv_dw.weight"] == 1
    assert found["stages.3.downsample.1.weight"] == found["stages.3.blocks.0.conv_dw.weight"]


def test_hierarchy_counts_blocks_over_all_stages() -> None:
    found = layers_of(meta("swin_tiny_patch4_window7_224"))
    assert found["patch_embed.proj.weight"] == found["layers.0.blocks.0.norm1.weight"] == 0
    assert found["layers.1.blocks.0.norm1.weight"] == found["layers.1.downsample.norm.weight"] == 2
    assert found["layers.3.blocks.1.norm1.weight"] == found["norm.weight"] == 11


def test_parameters_that_timm_does_not_place_join_what_comes_next() -> None:
    backbone = meta("vit_small_patch16_rope_mixed_224")
    model = backbone.model
    placed = group_parameters(model, model.group_matcher(), reverse=True)
    assert placed["rope.freqs"] == max(placed.values()) == 13  # with the classifier, at full rate
    assert layers_of(backbone)["rope.freqs"] == 0


@pytest.mark.parametrize(("name", "depth"), [("caformer_s18", 18), ("pit_s_224", 12)])
def test_models_without_a_matcher_are_divided_by_the_tapped_class(name: str, depth: int) -> None:
    found = layers_of(meta(name))
    assert set(found.values()) == set(range(depth))
    order = list(found.values())
    assert order == sorted(order)


class Block(nn.Module):
    """Token-wise: norm and FFN."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + self.mlp(self.norm(tokens))


class Own(nn.Module):
    """One's own module: patches, blocks, and a norm."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.body = nn.ModuleList(Block(8) for _ in range(depth))
        self.last = nn.LayerNorm(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        for block in self.body:
            tokens = block(tokens)
        side = images.shape[2] // 16
        return self.last(tokens).transpose(1, 2).reshape(len(images), 8, side, side)


def test_one_s_own_module() -> None:
    module = Own(3)
    rule = {"multiple": 16, "tap": "body.-1", "reason": "made up"}
    found = layers_of(wrap(module, own_spec(module, rule), 64))
    assert {name: layer for name, layer in found.items() if name.endswith("norm.weight")} == {
        f"body.{number}.norm.weight": number for number in range(3)
    }
    assert (found["patches.weight"], found["last.weight"]) == (0, 2)


def test_a_module_that_shows_no_blocks_is_told_so() -> None:
    module = Own(2)
    backbone = wrap(module, own_spec(module, {"multiple": 16}), 64)
    with pytest.warns(UserWarning, match="layer_decay 0.8 has no effect.*group_matcher"):
        assert set(scales(backbone, DECAY).values()) == {1.0}
    assert set(scales(backbone, 1.0).values()) == {1.0}
