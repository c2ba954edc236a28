"""Nyström, Fourier and merging ViTs as models: maps of every block, half precision, cost, cards, plain weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from tiny_backbones import spec
from torch import nn

from luma_cli.backbone.create import create_backbone
from luma_cli.catalogue.cards import load_cards
from luma_cli.catalogue.own import architecture
from luma_cli.isotropic.entrypoints import register
from luma_cli.measure.count import count

MIXERS = ("nystrom_vit", "fnet_vit", "gfnet_vit", "afno_vit", "tome_vit")
ALL = pytest.mark.parametrize("kind", MIXERS)


def tiny(kind: str) -> str:
    register()
    return architecture(kind, "tiny")


def model_of(kind: str, side: int = 64, **options) -> VisionTransformer:
    """Two blocks whose LayerScales, if any, are one, so that what the mixer does shows."""
    torch.manual_seed(0)
    model = timm.create_model(tiny(kind), **{"img_size": side, "depth": 2, "num_classes": 3, **options})
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.ones_(parameter)
    return model


def two_blocks(kind: str):
    return spec(tiny(kind), arguments={"depth": 2})


@ALL
def test_trains_at_a_size_that_is_no_power_of_two(kind):
    model = model_of(kind, 96).train()
    logits = model(torch.randn(2, 3, 96, 96))
    assert logits.shape == (2, 3)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@ALL
def test_maps_are_those_of_the_blocks(kind):
    model = model_of(kind, 96).eval()
    images = torch.randn(2, 3, 96, 96)
    final, maps = model.forward_intermediates(images, indices=2)
    assert [tuple(found.shape) for found in maps] == [(2, 192, 6, 6)] * 2
    tokens = model.forward_intermediates(images, indices=1, output_fmt="NLC", norm=True, intermediates_only=True)[0]
    assert torch.equal(tokens, final[:, model.num_prefix_tokens :])
    assert torch.equal(final, model.forward_features(images))
    first = model.forward_intermediates(images, indices=[0], stop_early=True, intermediates_only=True)
    assert torch.equal(first[0], maps[0])


@ALL
def test_timms_feature_extractor_works_on_rectangles(kind):
    features = timm.create_model(tiny(kind), features_only=True, img_size=(96, 64), depth=4, out_indices=(1, 3))
    assert [tuple(found.shape) for found in features(torch.randn(1, 3, 96, 64))] == [(1, 192, 6, 4)] * 2


@ALL
def test_weights_of_224_load_at_a_smaller_size(kind, tmp_path: Path):
    path = tmp_path / "weights.safetensors"
    state = model_of(kind, 224).state_dict()
    save_file(state, path)
    backbone = create_backbone(two_blocks(kind), 96, weights=str(path))
    loaded = backbone.model.state_dict()
    assert loaded["pos_embed"].shape == (1, 36, 192)
    torch.testing.assert_close(loaded["blocks.1.mlp.fc1.weight"], state["blocks.1.mlp.fc1.weight"])
    with torch.no_grad():
        assert torch.isfinite(backbone(torch.randn(1, 3, 96, 96))).all()


@ALL
def test_half_precision_gives_nearly_the_same(kind):
    """Tokens do not merge here: rounding may well choose other pairs, which is no error."""
    options = {"kept": 1.0} if kind == "tome_vit" else {}
    model, images = model_of(kind, 96, **options).eval(), torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        expected = model.forward_features(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model.forward_features(images).float()
        pure = model.bfloat16().forward_features(images.bfloat16()).float()
    for found in (mixed, pure):
        assert float((found - expected).norm() / expected.norm()) < 0.1


@ALL
@pytest.mark.parametrize("side", [224, 512, 1024])
def test_every_operator_is_counted_and_the_cost_is_linear_in_the_batch(kind, side):
    with torch.device("meta"):
        model = model_of(kind, side).eval()
    one, three = (count(model, torch.empty(batch, 3, side, side, device="meta")) for batch in (1, 3))
    assert one.complete
    assert abs(three.macs - 3 * one.macs) <= 3 * 2 * 2 * len(model.blocks)  # each transform is rounded up


@ALL
def test_the_card_has_four_sizes_without_weights_and_says_what_resizing_does(kind):
    card = load_cards()[kind]
    assert list(card.sizes) == ["t", "s", "b", "l"]
    assert card.resizing.startswith("Weights load at every resolution")
    assert {tuple(size.pretraining.values()) for size in card.sizes.values()} == {("",)}
    assert {source.split("/")[2] for source in card.sources} == {"arxiv.org", "github.com"}


def test_weights_of_a_plain_vit_mean_the_same_with_token_merging(tmp_path: Path):
    """With a position for the class token (ViT) or a LayerScale (DeiT III); without merging, the numbers are theirs."""
    small = {"embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 0}
    for options in ({}, {"no_embed_class": True, "init_values": 0.5}):
        torch.manual_seed(0)
        plain, path = VisionTransformer(64, **small, **options).eval(), tmp_path / "plain.safetensors"
        nn.init.normal_(plain.cls_token)
        save_file(plain.state_dict(), path)
        arguments = {**small, "kept": 1.0}
        del arguments["num_classes"]
        backbone = create_backbone(spec(tiny("tome_vit"), arguments=arguments), 64, weights=str(path))
        images = torch.randn(2, 3, 64, 64)
        expected = plain.forward_intermediates(images, indices=1, intermediates_only=True)[0]
        torch.testing.assert_close(backbone(images), expected)
        assert backbone.weights.ignored == ()
