"""The module table: our count and fvcore's agree, and every borrowed call is where its caller is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import MeasureError
from luma_cli.head.segmenter import build
from luma_cli.measure.count import count
from luma_cli.measure.facts import by_module, count_by_module, fvcore_macs, num_parameters, segmenter_cost


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *((name, HeadConfig()) for name in ("test_vit", "test_convnext", "test_efficientnet")),
        ("test_vit", HeadConfig("mask2former", variant="adapter")),
    ],
)
def test_fvcore_agrees_within_three_permille_for_every_module(name, head):
    segmenter = build(name, 64, head=head)
    rows = by_module(segmenter, max_depth=9)
    whole = rows[0]
    assert (whole.path, whole.macs, whole.params) == ("", segmenter_cost(segmenter).macs, num_parameters(segmenter))
    assert all(abs(row.fvcore_macs - row.macs) <= 0.003 * row.macs for row in rows if row.fvcore_macs is not None)
    assert len(rows) > 10


def test_the_query_pass_through_the_shared_ffn_is_the_heads():
    segmenter = build("test_vit", 64)
    rows = {row.path: row.macs for row in by_module(segmenter)}
    cost = segmenter_cost(segmenter)
    assert (rows["backbone"], rows["head"]) == (cost.backbone_macs, cost.head_macs)
    ffn = "backbone.model.blocks.5.mlp"
    assert rows[f"head > {ffn}"] == 100 * 2 * 64 * 3 * 64  # its hidden width is three times its own
    assert rows[ffn] == 17 * rows[f"head > {ffn}"] // 100


def test_fvcore_alone_would_lose_attention():
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval().requires_grad_(True)
    tokens = torch.zeros(1, 9, 16)
    call = _Attend(attention)
    assert fvcore_macs(call, tokens)[""] == count(call, tokens).macs


class _Attend(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, tokens):
        return nn.functional.scaled_dot_product_attention(tokens[:, None], tokens[:, None], tokens[:, None])


def test_an_operator_that_fvcore_does_not_know_is_an_error():
    class Fourier(nn.Module):
        def forward(self, images):
            return torch.fft.rfft2(images).real

    with pytest.raises(MeasureError, match="fvcore cannot count aten::fft_rfft2"):
        fvcore_macs(Fourier(), torch.zeros(1, 3, 8, 8))


def test_hooks_are_gone_even_after_a_failure():
    class Broken(nn.Module):
        def forward(self, images):
            raise ValueError("on purpose")

    root = nn.Sequential(nn.Conv2d(3, 4, 1), Broken()).to("meta")
    with pytest.raises(ValueError, match="on purpose"):
        count_by_module(root, torch.empty(1, 3, 4, 4, device="meta"))
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in root.modules())
