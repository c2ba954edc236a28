"""The linear probe: batch norm and one score per class on the final-normed map, at the patch grid."""

from __future__ import annotations

import pytest
import torch
from head_stand_in import images

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.head.linear import PixelLogits
from luma_cli.head.segmenter import build

SMALL = HeadConfig(name="linear", num_classes=7)


@pytest.mark.parametrize(("name", "grid"), [("test_vit", 4), ("test_convnext", 2), ("resnet10t", 2)])
def test_logits_are_one_score_per_class_and_patch(name, grid):
    found = build(name, 64, head=SMALL)(images())
    assert isinstance(found, PixelLogits)
    assert found.logits.shape == (2, 7, grid, grid)


@pytest.mark.parametrize(("name", "normed"), [("test_vit", True), ("resnet10t", False)])
def test_it_is_batch_norm_and_a_product(name, normed):
    segmenter = build(name, 64, head=SMALL)
    head, backbone = segmenter.head, segmenter.backbone
    with torch.no_grad():
        head.norm.running_mean.normal_()
        head.norm.running_var.uniform_(0.5, 2)
        tokens = backbone(images()).flatten(2).transpose(1, 2)
        assert backbone.has_final_norm == normed
        tokens = backbone.norm_tokens(tokens) if normed else tokens
        scaled = (tokens - head.norm.running_mean) / (head.norm.running_var + head.norm.eps).sqrt()
        expected = scaled @ head.classify.weight[:, :, 0, 0].T + head.classify.bias
        found = segmenter(images()).logits.flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_frozen_backbone_stays_as_it_is_while_the_probe_learns():
    segmenter = build("test_vit", 64, head=SMALL)
    segmenter.backbone.requires_grad_(False)
    segmenter.head.train()
    before = segmenter.backbone(images())
    (only,) = segmenter.predictions(images())
    only.logits.square().mean().backward()
    assert all(parameter.grad is not None for parameter in segmenter.head.parameters())
    assert torch.equal(segmenter.backbone(images()), before)


def test_every_parameter_is_held_once():
    segmenter = build("test_vit", 64, head=SMALL)
    kinds = {key.removeprefix("head.") for key in segmenter.state_dict() if key.startswith("head.")}
    assert {key for key in kinds if "running" not in key and "num_batches" not in key} == {
        "norm.weight", "norm.bias", "classify.weight", "classify.bias",
    }  # fmt: skip
