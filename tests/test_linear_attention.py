"""Hydra and linear attention against their papers' sums, written with loops."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from luma_cli.isotropic.attention import HydraAttention, LinearAttention, attend
from luma_cli.isotropic.vit import Sequence, TokenMixer

SEQUENCE = Sequence((3, 3), 1)


def tokens(width: int = 12) -> Tensor:
    return torch.randn(2, SEQUENCE.length, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def without_projection(mixer: TokenMixer) -> TokenMixer:
    """The mixer in float64 with weights of size one and an identity after the mixing."""
    generator = torch.Generator().manual_seed(1)
    mixer = mixer.double()
    for parameter in mixer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    mixer.proj.weight.data = torch.eye(mixer.width, dtype=torch.float64)
    mixer.proj.bias.data.zero_()
    return mixer.eval()


@torch.no_grad()
def test_hydra_is_attention_by_cosine_with_as_many_heads_as_channels() -> None:
    """Section 3: with one channel per head, each head's weights are products of normalised queries and keys."""
    mixer, x = without_projection(HydraAttention(12, 3, SEQUENCE)), tokens()
    queries, keys, values = mixer.qkv(x).chunk(3, dim=-1)
    expected = torch.zeros_like(x)
    for image in range(2):
        for channel in range(12):
            for i in range(SEQUENCE.length):
                for j in range(SEQUENCE.length):
                    query = queries[image, i, channel] / queries[image, i].norm()
                    key = keys[image, j, channel] / keys[image, j].norm()
                    expected[image, i, channel] += query * key * values[image, j, channel]
    torch.testing.assert_close(mixer(x), expected)


def feature(value: float) -> float:
    return value + 1 if value > 0 else math.exp(value)


@torch.no_grad()
def test_linear_attention_is_its_quadratic_form() -> None:
    """Equation 4 with elu + 1, weight by weight, each row normalised."""
    mixer, x = without_projection(LinearAttention(12, 3, SEQUENCE)), tokens()
    queries, keys, values = mixer.qkv(x).chunk(3, dim=-1)
    expected = torch.zeros_like(x)
    for image in range(2):
        for head in range(3):
            own = slice(4 * head, 4 * head + 4)
            for i in range(SEQUENCE.length):
                weights = torch.tensor(
                    [
                        sum(
                            feature(float(q)) * feature(float(k))
                            for q, k in zip(queries[image, i, own], keys[image, j, own], strict=True)
                        )
                        for j in range(SEQUENCE.length)
                    ],
                    dtype=torch.float64,
                )
                expected[image, i, own] = (weights / weights.sum()) @ values[image, :, own]
    torch.testing.assert_close(mixer(x), expected, rtol=1e-5, atol=1e-6)


def test_equal_keys_give_the_mean_of_the_values() -> None:
    values = tokens().unsqueeze(1)
    mixed = attend(torch.rand(2, 1, 10, 5).double(), torch.ones(2, 1, 10, 5).double(), values, epsilon=0.0)
    torch.testing.assert_close(mixed, values.mean(dim=2, keepdim=True).expand_as(mixed), rtol=1e-5, atol=1e-6)


def test_half_precision_survives_4096_tokens() -> None:
    """Sums over tokens would leave float16 (features of 64 channels, 4,096 tokens); means do not."""
    mixer = LinearAttention(64, 1, Sequence((64, 64), 0)).eval()
    generator = torch.Generator().manual_seed(0)
    mixer.qkv.weight.data = torch.randn(192, 64, generator=generator) / 8
    mixer.qkv.bias.data.fill_(3.0)
    x = torch.randn(1, 4096, 64, generator=generator)
    with torch.no_grad():
        full, half = mixer(x), mixer.half()(x.half()).float()
    assert (full - half).norm() < 1e-2 * full.norm()
