"""AFNO's operator against complex arithmetic one frequency at a time, its limits and its cost."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from luma_cli.isotropic.fourier import FourierOperator
from luma_cli.isotropic.vit import Sequence
from luma_cli.measure.count import count


def operator(grid: tuple[int, int], width: int = 8, **options) -> FourierOperator:
    torch.manual_seed(0)
    mixer = FourierOperator(width, 1, Sequence(grid), num_blocks=2, **options).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    return mixer


def layer(value: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return value @ torch.complex(*weight) + torch.complex(*bias)


def both_parts(function, value: Tensor) -> Tensor:
    return torch.complex(function(value.real), function(value.imag))


def slow(mixer: FourierOperator, tokens: Tensor, shrinkage: float) -> Tensor:
    """One image [H, W, C] through full complex transforms, block by block and frequency by frequency."""
    rows, columns, width = tokens.shape
    spectrum = torch.fft.rfft2(tokens, dim=(0, 1), norm="ortho")
    result = torch.zeros_like(spectrum)
    inner = width // 2
    for row in range(rows):
        for column in range(columns // 2 + 1):
            for block in range(2):
                channels = slice(block * inner, (block + 1) * inner)
                hidden = layer(spectrum[row, column, channels], mixer.w1[:, block], mixer.b1[:, block])
                hidden = both_parts(torch.relu, hidden)
                out = layer(hidden, mixer.w2[:, block], mixer.b2[:, block])
                result[row, column, channels] = both_parts(
                    lambda part: part.sign() * (part.abs() - shrinkage).clamp_min(0), out
                )
    return tokens + torch.fft.irfft2(result, s=(rows, columns), dim=(0, 1), norm="ortho")


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
@pytest.mark.parametrize("expansion", [1, 3])
def test_is_a_complex_mlp_at_every_frequency(grid, expansion):
    mixer = operator(grid, expansion=expansion, shrinkage=0.3)
    images = torch.randn(2, *grid, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([slow(mixer, image, 0.3) for image in images])
        torch.testing.assert_close(mixer(images.flatten(1, 2)), expected.flatten(1, 2))


def test_with_identity_weights_and_no_shrinkage_it_doubles_its_input():
    """relu(x) - relu(-x) = x, so a hidden layer [I, -I] and a last layer [I, -I]^T let everything pass."""
    mixer = operator((4, 5), expansion=2, shrinkage=0.0)
    identity = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.zero_()
        mixer.w1[0] = torch.cat([identity, -identity], dim=-1)
        mixer.w2[0] = torch.cat([identity, -identity], dim=-2)
    tokens = torch.randn(2, 20, 8, dtype=torch.float64)
    torch.testing.assert_close(mixer(tokens), 2 * tokens)


def test_shrinkage_beyond_every_coefficient_leaves_the_input_alone():
    mixer = operator((4, 4), shrinkage=1e6)
    tokens = torch.randn(1, 16, 8, dtype=torch.float64)
    torch.testing.assert_close(mixer(tokens), tokens, rtol=0, atol=0)


def test_blocks_of_channels_never_mix():
    mixer = operator((4, 4))
    tokens = torch.randn(1, 16, 8, dtype=torch.float64)
    changed = tokens.clone()
    changed[..., 4:] += 1
    difference = mixer(changed) - mixer(tokens)
    assert difference[..., :4].abs().max() == 0
    assert difference[..., 4:].abs().min() > 0


@pytest.mark.parametrize("side", [14, 32, 64])
@pytest.mark.parametrize("expansion", [1, 2])
def test_cost_in_closed_form_and_parameters_without_resolution(side, expansion):
    with torch.device("meta"):
        mixer = FourierOperator(192, 3, Sequence((side, side)), expansion=expansion)
    tokens, frequencies = side * side, side * (side // 2 + 1)
    counted = count(mixer, torch.empty(1, tokens, 192, device="meta"))
    transforms = 2 * math.ceil(5 / 4 * tokens * 192 * math.log2(tokens))
    assert counted.complete
    assert counted.macs == 8 * frequencies * 192**2 * expansion // 8 + transforms
    assert sum(p.numel() for p in mixer.parameters()) == 4 * 192 * 24 * expansion + 2 * 192 * (expansion + 1)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="10 channels do not split into 4 blocks"):
        FourierOperator(10, 1, Sequence((4, 4)), num_blocks=4)
    with pytest.raises(ValueError, match=r"AFNO needs the patch grid alone, got 1 .*class_token=False"):
        FourierOperator(8, 1, Sequence((4, 4), 1))
    with pytest.raises(ValueError, match=r"15 tokens, expected 4 x 4"):
        operator((4, 4))(torch.zeros(1, 15, 8))


def test_autocast_leaves_the_operator_in_float32():
    torch.manual_seed(0)
    mixer, tokens = FourierOperator(16, 1, Sequence((8, 8))), torch.randn(1, 64, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mixer(tokens)
    torch.testing.assert_close(mixed, mixer(tokens), rtol=0, atol=0)
