"""FNet's mixing against explicit matrices of the discrete Fourier transform, and its cost."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import Tensor

from luma_cli.isotropic.fourier import FourierMixing, real_spectrum
from luma_cli.isotropic.vit import Sequence
from luma_cli.measure.count import count


def dft(size: int) -> Tensor:
    rows = [[cmath.exp(-2j * math.pi * row * column / size) for column in range(size)] for row in range(size)]
    return torch.tensor(rows, dtype=torch.complex128)


@pytest.mark.parametrize("width", [6, 7, 1])
@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize(("scale", "power"), [("backward", 0.0), ("ortho", 0.5), ("forward", 1.0)])
def test_is_the_real_part_of_both_transforms(width, prefix, scale, power):
    sequence = Sequence((2, 5), prefix)
    tokens = torch.randn(3, sequence.length, width, dtype=torch.float64)
    explicit = (dft(sequence.length) @ tokens.to(torch.complex128) @ dft(width)).real
    expected = explicit / (sequence.length * width) ** power
    torch.testing.assert_close(FourierMixing(width, 1, sequence, scale=scale)(tokens), expected)


def test_over_the_grid_transforms_rows_columns_and_channels():
    tokens = torch.randn(2, 20, 6, dtype=torch.float64)
    grid = tokens.reshape(2, 4, 5, 6).to(torch.complex128)
    explicit = torch.einsum("ar,bs,cd,nrsd->nabc", dft(4), dft(5), dft(6), grid).real
    mixer = FourierMixing(6, 1, Sequence((4, 5)), over="grid", scale="backward")
    torch.testing.assert_close(mixer(tokens), explicit.reshape(2, 20, 6))


def test_over_the_grid_takes_no_class_token():
    with pytest.raises(ValueError, match=r"FNet over the grid needs the patch grid alone, got 1 .*class_token=False"):
        FourierMixing(6, 1, Sequence((4, 5), 1), over="grid")


def test_the_zero_frequency_is_the_mean_at_every_resolution():
    for side in (14, 64):
        mixed = FourierMixing(8, 1, Sequence((side, side)))(torch.full((1, side * side, 8), 3.0))
        assert mixed[0, 0, 0] == pytest.approx(3.0)
        assert mixed.abs().sum() == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize(("shape", "points"), [((197, 192), 197 * 192), ((4097, 768), 4097 * 768)])
def test_costs_half_of_a_complex_transform(shape, points):
    counted = count(lambda x: real_spectrum(x, "forward"), torch.empty(2, *shape, device="meta"))
    assert counted.complete
    assert counted.macs == math.ceil(2 * points * 5 / 4 * math.log2(points))


def test_has_no_parameters_and_keeps_the_dtype():
    mixer = FourierMixing(8, 1, Sequence((4, 4), 1))
    tokens = torch.randn(1, 17, 8)
    assert list(mixer.parameters()) == []
    half = mixer(tokens.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), mixer(tokens.bfloat16().float()), rtol=8e-3, atol=1e-6)
