"""GFNet's filter against an explicit circular convolution, and its resampling for another grid."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from luma_cli.isotropic.fourier import GlobalFilter
from luma_cli.isotropic.vit import Sequence
from luma_cli.measure.count import count


def filter_of(grid: tuple[int, int], width: int = 3, seed: int = 0) -> GlobalFilter:
    torch.manual_seed(seed)
    return GlobalFilter(width, 1, Sequence(grid))


def circular(image: Tensor, kernel: Tensor) -> Tensor:
    """Image and kernel [H, W, C], convolved with indices that wrap around, one output at a time."""
    rows, columns, _ = image.shape
    result = torch.zeros_like(image)
    for row in range(rows):
        for column in range(columns):
            for down in range(rows):
                for right in range(columns):
                    result[row, column] += kernel[down, right] * image[(row - down) % rows, (column - right) % columns]
    return result


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (4, 6)])
def test_is_a_circular_convolution_with_the_inverse_transform_of_the_filter(grid):
    mixer = filter_of(grid).double()
    weight = torch.view_as_complex(mixer.complex_weight.detach())
    kernel = torch.fft.irfft2(weight, s=grid, dim=(0, 1))
    tokens = torch.randn(2, grid[0] * grid[1], 3, dtype=torch.float64)
    expected = torch.stack([circular(image.reshape(*grid, 3), kernel).flatten(0, 1) for image in tokens])
    torch.testing.assert_close(mixer(tokens), expected)


def response(value: Tensor, row: float, column: float) -> Tensor:
    """The filter at a frequency in cycles per patch that its grid has."""
    rows = value.shape[0]
    columns = 2 * (value.shape[1] - 1)
    return value[round(row * rows) % rows, round(column * columns)]


def test_resampling_keeps_what_was_learned_at_each_frequency():
    small, large = filter_of((14, 14)), filter_of((28, 28), seed=1)
    resampled = large.resampled("complex_weight", small.complex_weight.detach())
    assert resampled.shape == large.complex_weight.shape
    for row in range(14):
        for column in range(8):
            learned = small.complex_weight[row, column]
            torch.testing.assert_close(response(resampled, row / 14, column / 14), learned)
    between = (small.complex_weight[3, 2] + small.complex_weight[4, 2]) / 2
    torch.testing.assert_close(resampled[7, 4], between)


def test_resampling_there_and_back_is_the_identity():
    small, large = filter_of((14, 14)), filter_of((28, 28), seed=1)
    there = large.resampled("complex_weight", small.complex_weight.detach())
    torch.testing.assert_close(small.resampled("complex_weight", there), small.complex_weight.detach())


@pytest.mark.parametrize(("old", "new"), [((14, 14), (32, 32)), ((14, 14), (9, 9)), ((7, 7), (64, 64))])
def test_a_filter_that_only_scales_is_the_same_at_every_grid(old, new):
    value = torch.zeros_like(filter_of(old).complex_weight)
    value[..., 0] = 2.5
    mixer = filter_of(new)
    mixer.complex_weight.data = mixer.resampled("complex_weight", value)
    tokens = torch.randn(1, new[0] * new[1], 3)
    torch.testing.assert_close(mixer(tokens), 2.5 * tokens)


def test_parameters_of_the_same_grid_and_others_come_back_as_they_are():
    mixer, value = filter_of((4, 4)), torch.randn(4, 3, 3, 2)
    assert mixer.resampled("complex_weight", value) is value
    assert mixer.resampled("foreign", torch.ones(2)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("side", [14, 32, 64])
def test_cost_and_parameters_in_closed_form(side):
    with torch.device("meta"):
        mixer = GlobalFilter(192, 3, Sequence((side, side)))
    tokens = side * side
    counted = count(mixer, torch.empty(1, tokens, 192, device="meta"))
    assert counted.complete
    assert counted.macs == 2 * math.ceil(5 / 4 * tokens * 192 * math.log2(tokens))
    assert sum(p.numel() for p in mixer.parameters()) == side * (side // 2 + 1) * 192 * 2


def test_a_class_token_and_another_number_of_tokens_are_refused():
    with pytest.raises(ValueError, match=r"GFNet needs the patch grid alone, got 1 .*class_token=False"):
        GlobalFilter(3, 1, Sequence((4, 4), 1))
    with pytest.raises(ValueError, match=r"25 tokens, expected 4 x 4; build the model at this img_size"):
        filter_of((4, 4))(torch.zeros(1, 25, 3))
