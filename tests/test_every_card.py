"""Every card, in its smallest size: one real forward and backward of the LUMA head on the CPU."""

from __future__ import annotations

import pytest
import torch
from timm.layers import weight_init

from luma_cli.catalogue.cards import Card, load_cards, spec_of
from luma_cli.catalogue.costs import load_costs
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BadResolution
from luma_cli.head.segmenter import Segmenter, build

RESOLUTIONS = (64, 96, 128, 192, 224, 256)
CONFIG = HeadConfig(num_queries=5, num_classes=7)
EVERY_CARD = pytest.mark.parametrize("card", load_cards().values(), ids=lambda card: card.name)


@pytest.fixture(autouse=True)
def weights_drawn_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clamped instead of truncated normals: 300 million of the latter take seconds, and here any weights will do."""

    def clamped(tensor: torch.Tensor, mean: float, std: float, a: float, b: float) -> torch.Tensor:
        return tensor.normal_(mean, std).clamp_(a, b)

    monkeypatch.setattr(weight_init, "_trunc_normal_", clamped)


def smallest(card: Card, resolution: int) -> Segmenter:
    """The card's size with the fewest multiply-adds, at `resolution` pixels."""
    known = {
        facts.macs: size for size in card.sizes.values() if (facts := load_costs().get((size.timm, 512))) is not None
    }
    return build(spec_of(card, known[min(known)]), resolution, head=CONFIG)


def at_smallest_resolution(card: Card) -> Segmenter:
    for resolution in RESOLUTIONS[:-1]:
        try:
            return smallest(card, resolution)
        except BadResolution:
            continue
    return smallest(card, RESOLUTIONS[-1])


@EVERY_CARD
def test_forward_and_backward(card: Card) -> None:
    segmenter = at_smallest_resolution(card)
    side = segmenter.backbone.resolution
    prediction = segmenter(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    assert prediction.class_logits.shape == (2, 5, 8)
    assert prediction.mask_logits.shape == (2, 5, side // 4, side // 4)
    (prediction.class_logits.square().mean() + prediction.mask_logits.square().mean()).backward()
    assert segmenter.head is not None
    lost = [name for name, parameter in segmenter.head.named_parameters() if parameter.grad is None]
    assert lost == []
    grads = [parameter.grad for parameter in segmenter.backbone.parameters() if parameter.grad is not None]
    assert grads
    assert all(bool(grad.isfinite().all()) for grad in grads)
    assert any(bool(grad.any()) for grad in grads)
