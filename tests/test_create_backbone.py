"""Sizes that fit and sizes that do not, one's own modules, and the facts that a backbone states about itself."""

from __future__ import annotations

import pytest
import torch
from tiny_backbones import KINDS, shared, spec
from torch import nn

from luma_cli.backbone.create import create_backbone, wrap
from luma_cli.backbone.selfcheck import check
from luma_cli.errors import BadCard, BadResolution, BuildError, UnknownName


@pytest.mark.parametrize("name", KINDS)
def test_facts_hold(name: str) -> None:
    backbone = shared(name)
    side = backbone.resolution
    with torch.no_grad():
        features = backbone(torch.randn(2, 3, side, side))
        assert features.shape == (2, backbone.width, side // backbone.stride, side // backbone.stride)
        assert backbone.num_tokens == features.shape[2] * features.shape[3]
        assert backbone.width % backbone.num_heads == 0
        if backbone.has_final_norm:
            tokens = features.flatten(2).transpose(1, 2)
            normed = backbone.norm_tokens(tokens)
            assert normed.shape == tokens.shape
            torch.testing.assert_close(normed[:, :3], backbone.norm_tokens(tokens[:, :3]))


def test_the_final_norm_is_the_backbone_s_own() -> None:
    backbone, tokens = shared("test_vit"), torch.randn(1, 4, 64)
    torch.testing.assert_close(backbone.norm_tokens(tokens), backbone.model.norm(tokens))
    with pytest.raises(BuildError, match="has no final norm"):
        shared("test_convnext").norm_tokens(tokens)


@pytest.mark.parametrize(
    ("name", "resolution", "near"),
    [
        ("vit_base_patch16_224", 500, "496 or 512"),
        ("resnet50", 500, "480 or 512"),
        ("resnet50", 13, "32"),
        ("resnet50", 0, "32"),
        ("resnet50", -5, "32"),
        ("convnext_tiny", 100000, "16384"),
        ("efficientformer_l1", 512, "224"),
        ("pit_b_224", 512, "504 or 532"),
        ("halonet_h1", 288, "256 or 512"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_nearest(name: str, resolution: int, near: str) -> None:
    with pytest.raises(BadResolution, match=f"{resolution} pixels.*try --res {near}$") as caught:
        create_backbone(spec(name), resolution, device="meta")
    assert "\n" not in str(caught.value)
    for size in near.split(" or "):
        if int(size) <= 1024:
            assert create_backbone(spec(name), int(size), device="meta").resolution == int(size)


def test_where_the_rule_is_too_lax_sizes_that_run_are_searched() -> None:
    with pytest.raises(
        BadResolution, match="cannot run at 384 pixels: its layers refuse this size; try --res 256 or 512"
    ):
        create_backbone(spec("halonet_h1", multiple=128), 384, device="meta")


@pytest.mark.parametrize(("name", "stride"), [("vit_base_patch16_224", 16), ("convnext_tiny", 32), ("levit_128s", 64)])
@pytest.mark.parametrize("resolution", [512, 1024])
def test_large_sizes_on_meta(name: str, stride: int, resolution: int) -> None:
    backbone = create_backbone(spec(name), resolution, device="meta")
    assert (backbone.stride, backbone.grid) == (stride, (resolution // stride, resolution // stride))


def test_a_name_that_timm_lacks() -> None:
    with pytest.raises(UnknownName, match="luma list vit_bose"):
        create_backbone(spec("vit_bose"), 64)


class OwnBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(8, 8, 3, padding=1)
        self.ln = nn.LayerNorm(8)
        self.feed = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        grid = grid + self.mix(grid)
        tokens = grid.permute(0, 2, 3, 1)
        return (tokens + self.feed(self.ln(tokens))).permute(0, 3, 1, 2)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, 8)
        self.blocks = nn.Sequential(OwnBlock(), OwnBlock())
        self.classifier = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.stem(images))


CARD = {"tap": "blocks.-1", "ffn": {"kind": "pre-norm", "branch": ["ln", "feed"], "layout": "nhwc", "output": "nchw"}}


def test_one_s_own_module_with_a_card_lends_its_ffn() -> None:
    backbone = wrap(Own(), spec("own", **CARD), 64)
    assert (backbone.width, backbone.stride, backbone.ffn_kind) == (8, 8, "pre-norm")
    assert backbone.pruned == ("classifier.weight", "classifier.bias")
    assert check(backbone).status == "exact"


def test_a_wrong_card_is_caught_by_the_check() -> None:
    wrong = {**CARD, "ffn": {**CARD["ffn"], "branch": ["feed"]}}
    assert check(wrap(Own(), spec("own", **wrong), 64)).status == "wrong"


def test_a_misspelt_key_in_a_card_is_refused_with_the_right_one() -> None:
    with pytest.raises(BadCard, match="unknown key 'tapp'; did you mean 'tap'"):
        wrap(Own(), spec("own", tapp="blocks.-1"), 64)
