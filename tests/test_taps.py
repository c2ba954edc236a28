"""Which blocks of a backbone can be read, and that what is read is what the block took and gave."""

from __future__ import annotations

import pytest
import torch
from tiny_backbones import KINDS, shared, spec
from torch import Tensor, nn

from luma_cli.backbone.create import create_backbone, wrap
from luma_cli.backbone.taps import Watch, read
from luma_cli.backbone.timm_model import to_tokens
from luma_cli.catalogue.spec import BackboneSpec


def images(side: int) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


IMAGES = images(64)


def meta(name: str, resolution: int = 224):
    return create_backbone(spec(name), resolution, device="meta")


@pytest.mark.parametrize("name", KINDS)
def test_the_tapped_block_is_last_and_its_tokens_are_the_map(name):
    backbone = shared(name)
    sites = backbone.sites
    assert backbone.block(0) is backbone.ffn.block
    assert sites.found[-1].num_tokens == backbone.num_tokens
    assert len({site.name for site in sites.found}) == len(sites.found)
    assert {type(backbone.block(back)) for back in range(len(sites.found))} == {type(backbone.ffn.block)}


@pytest.mark.parametrize(
    ("name", "depth", "prefix"),
    [
        ("vit_tiny_patch16_224", 12, 1),
        ("vit_small_patch14_reg4_dinov2", 12, 5),
        ("vit_small_patch16_dinov3", 12, 5),
        ("vit_base_patch16_siglip_224", 12, 0),
        ("swin_tiny_patch4_window7_224", 12, 0),
        ("convnext_tiny", 18, 0),
        ("hiera_tiny_224", 12, 0),
        ("mvitv2_small_cls", 16, 1),
        ("pvt_v2_b0", 8, 0),
        ("davit_tiny", 6, 0),  # channel blocks; the spatial ones between them are another kind
    ],
)
def test_depth_and_prefix_tokens(name, depth, prefix):
    sites = meta(name).sites
    assert (len(sites.found), sites.num_prefix_tokens) == (depth, prefix)


@pytest.mark.parametrize("name", ["cait_xxs24_224", "xcit_nano_12_p16_224"])
def test_class_attention_blocks_never_count(name):
    backbone = meta(name)
    assert len(backbone.sites.found) == len(backbone.model.blocks)


def test_stages_change_width_and_grid():
    swin = meta("swin_tiny_patch4_window7_224").sites.found
    assert [(site.width, site.num_tokens) for site in swin[-5:]] == [(384, 196)] * 3 + [(768, 49)] * 2
    assert all((site.width, site.num_tokens) == (site.width_in, site.num_tokens_in) for site in swin)
    hiera = meta("hiera_tiny_224").sites.found[-2]
    assert (hiera.width, hiera.num_tokens, hiera.width_in, hiera.num_tokens_in) == (768, 49, 384, 196)


def test_a_backbone_without_a_tapped_block_says_why():
    sites = meta("resnet50").sites
    assert not sites.found
    assert sites.reason == "residual blocks of convolutions, without an FFN"


def test_blocks_that_run_on_other_than_the_whole_grid_end_the_list():
    sites = meta("caformer_s18").sites  # its first stages are blocks of the same class on maps, not on tokens
    assert len(sites.found) == 12
    assert "no tokens of a square grid" in sites.reason


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("input", [False, True])
@torch.no_grad()  # LeViT keeps what it computed in a forward, and could not be copied with a graph
def test_what_is_read_is_what_the_block_took_or_gave(name, input):
    backbone = shared(name)
    site, block = backbone.sites.found[0], backbone.block(len(backbone.sites.found) - 1)
    if input and not site.num_tokens_in:
        pytest.skip("its input is no grid")
    seen: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple, *output: object) -> None:
        value = inputs if input else output[0]
        value = value if isinstance(value, Tensor) else value[site.index if len(value) > site.index else 0]
        seen.append(value.clone())

    hooks = [block.register_forward_pre_hook(look) if input else block.register_forward_hook(look)]
    watch = Watch(block, site, input=input, num_skipped=0)
    try:
        features, (tokens,) = read(backbone, images(backbone.resolution), [watch])
    finally:
        hooks[0].remove()
    assert torch.equal(tokens, to_tokens(seen[-1], site.layout))
    width, count = (site.width_in, site.num_tokens_in) if input else (site.width, site.num_tokens)
    assert tokens.shape == (2, count + backbone.sites.num_prefix_tokens, width)
    assert torch.equal(features, backbone(images(backbone.resolution)))


def test_a_watch_keeps_nothing_unless_it_reads():
    backbone = create_backbone(spec("test_vit"), 64)
    watch = Watch(backbone.block(1), backbone.sites.found[-2], input=False, num_skipped=0)
    backbone(IMAGES)
    assert watch._kept is None
    read(backbone, IMAGES, [watch])
    assert watch._kept is None
    assert not watch.active


class InPlace(nn.Module):
    """A block that overwrites what it is given: y = x + FFN(x), written into x."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.mlp = nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.add_(self.mlp(self.norm(tokens)))


class InPlaceModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.blocks = nn.ModuleList(InPlace() for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) * 1.0
        for block in self.blocks:
            tokens = block(tokens)
        return tokens.transpose(1, 2).unflatten(2, (4, 4))


def test_what_a_later_block_overwrites_is_copied():
    rule = {"tap": "blocks.-1", "ffn": {"kind": "in place", "branch": ["norm", "mlp"]}}
    torch.manual_seed(0)
    backbone = wrap(InPlaceModel().eval(), BackboneSpec("own", "own", "own", source="import", rule=rule), 64)
    assert [site.copies for site in backbone.sites.found] == [True, True]
    with torch.no_grad():
        watch = Watch(backbone.block(1), backbone.sites.found[0], input=False, num_skipped=0)
        features, (tokens,) = read(backbone, IMAGES, [watch])
        start = backbone.model.patches(IMAGES).flatten(2).transpose(1, 2)
        first = backbone.model.blocks[0]
        torch.testing.assert_close(tokens, start + first.mlp(first.norm(start)))
    assert not torch.equal(tokens, features.flatten(2).transpose(1, 2))
