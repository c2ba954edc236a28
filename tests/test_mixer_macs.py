"""Multiply-adds of every mixer are its closed form, exactly: N tokens, C channels, H heads of d channels, B images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from luma_cli.isotropic.attention import (
    DenseSynthesizer,
    FactorisedDenseSynthesizer,
    FactorisedRandomSynthesizer,
    HydraAttention,
    LinearAttention,
    LinformerAttention,
    PerformerAttention,
    RandomSynthesizer,
)
from luma_cli.isotropic.vit import Sequence, TokenMixer
from luma_cli.measure.count import count

Formula = Callable[[int, int, int, int], int]
FORMULAS: dict[type[TokenMixer], Formula] = {
    HydraAttention: lambda b, n, c, h: b * 4 * n * c**2,
    LinearAttention: lambda b, n, c, h: b * (4 * n * c**2 + 2 * n * c * (c // h) + n * c),
    PerformerAttention: lambda b, n, c, h: b * (4 * n * c**2 + 4 * n * c * 128 + n * h * 128),
    LinformerAttention: lambda b, n, c, h: b * (4 * n * c**2 + 4 * n * c * 256),
    DenseSynthesizer: lambda b, n, c, h: b * (3 * n * c**2 + 2 * n**2 * c),
    RandomSynthesizer: lambda b, n, c, h: b * (2 * n * c**2 + n**2 * c),
    FactorisedRandomSynthesizer: lambda b, n, c, h: b * (2 * n * c**2 + n**2 * c) + 8 * h * n**2,
    FactorisedDenseSynthesizer: lambda b, n, c, h: b * (2 * n * c**2 + n * c * h * (14 + 15) + n**2 * c),
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", FORMULAS)
def test_multiply_adds_are_the_closed_form(kind: type[TokenMixer], batch: int) -> None:
    width, heads, sequence = 192, 3, Sequence((14, 14), 1)
    with torch.device("meta"):
        mixer = kind(width, heads, sequence).eval()
    counted = count(mixer, torch.empty(batch, sequence.length, width, device="meta"))
    assert counted.complete
    assert counted.macs == FORMULAS[kind](batch, sequence.length, width, heads)
