"""Parameters that no loss reaches are found without computing anything, and those of usual models are all trained."""

from __future__ import annotations

import pytest
import torch

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.head.segmenter import build
from luma_cli.train.optimiser import freeze_unreached


@pytest.mark.parametrize(("name", "head"), [("test_vit", "luma"), ("test_vit", "eomt"), ("test_convnext", "linear")])
def test_everything_of_a_usual_model_is_trained(name, head):
    segmenter = build(name, 64, head=HeadConfig(name=head))
    assert freeze_unreached(segmenter, 64) == ()
    assert all(parameter.requires_grad for parameter in segmenter.parameters())


def test_what_is_found_is_what_a_real_backward_pass_leaves_without_gradient():
    segmenter = build("coat_tiny", 64, head=HeadConfig(num_queries=4, num_classes=3))
    found = freeze_unreached(segmenter, 64)
    assert len(found) == 4
    (prediction,) = segmenter.train().predictions(torch.randn(2, 3, 64, 64))
    (prediction.class_logits.sum() + prediction.mask_logits.sum()).backward()
    missing = [name for name, parameter in segmenter.named_parameters() if parameter.grad is None]
    assert sorted(missing) == list(found)
    assert [name for name, parameter in segmenter.named_parameters() if not parameter.requires_grad] == missing


def test_frozen_parameters_are_not_counted_and_the_model_is_not_touched():
    segmenter = build("test_vit", 64)
    for parameter in segmenter.backbone.parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    assert freeze_unreached(segmenter, 64) == ()
    assert not segmenter.training
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
