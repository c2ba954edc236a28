"""FAVOR+ estimates softmax attention: without bias, better with more features, and exactly as its formula says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from luma_cli.isotropic.attention import PerformerAttention, orthogonal_directions
from luma_cli.isotropic.vit import Sequence

WIDTH, HEADS, SEQUENCE = 16, 2, Sequence((4, 4), 1)


def performer(num_features: int, seed: int, epsilon: float = 0.0) -> PerformerAttention:
    torch.manual_seed(seed)
    mixer = PerformerAttention(WIDTH, HEADS, SEQUENCE, num_features, epsilon).double().eval()
    generator = torch.Generator().manual_seed(99)
    mixer.qkv.weight.data = torch.randn(3 * WIDTH, WIDTH, generator=generator, dtype=torch.float64) / 8
    mixer.proj.weight.data = torch.eye(WIDTH, dtype=torch.float64)
    mixer.proj.bias.data.zero_()
    return mixer


def tokens() -> Tensor:
    return torch.randn(2, 17, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def softmax_attention(mixer: PerformerAttention, x: Tensor) -> Tensor:
    queries, keys, values = map(mixer.split_heads, mixer.qkv(x).chunk(3, dim=-1))
    return mixer.merge_heads(scaled_dot_product_attention(queries, keys, values))


@torch.no_grad()
def error(num_features: int, seeds: range) -> float:
    """Root mean square of the estimate's relative error over draws of the features."""
    x = tokens()
    squares = []
    for seed in seeds:
        mixer = performer(num_features, seed)
        truth = softmax_attention(mixer, x)
        squares.append(float(((mixer(x) - truth).norm() / truth.norm()) ** 2))
    return math.sqrt(sum(squares) / len(squares))


def test_the_error_falls_with_the_root_of_the_number_of_features() -> None:
    few, many = error(1024, range(24)), error(16384, range(24))
    assert many < 0.02
    assert 3 < few / many < 5  # sqrt(16384 / 1024) = 4


@torch.no_grad()
def test_features_are_those_of_lemma_1() -> None:
    """phi(q) phi(k) of equation 5, feature by feature, normalised over keys."""
    mixer, x = performer(5, 0, epsilon=0.0), tokens()
    queries, keys, values = map(mixer.split_heads, mixer.qkv(x).chunk(3, dim=-1))
    scale = (WIDTH // HEADS) ** -0.25

    def phi(vector: Tensor) -> Tensor:
        vector = vector * scale
        return torch.stack([torch.exp(w @ vector - vector @ vector / 2) for w in mixer.directions]) / math.sqrt(5)

    expected = torch.zeros_like(values)
    for image in range(2):
        for head in range(HEADS):
            for i in range(17):
                weights = torch.stack([phi(queries[image, head, i]) @ phi(keys[image, head, j]) for j in range(17)])
                expected[image, head, i] = (weights / weights.sum()) @ values[image, head]
    torch.testing.assert_close(mixer(x), mixer.merge_heads(expected), rtol=1e-4, atol=1e-5)


def test_directions_are_orthogonal_in_blocks_with_lengths_of_gaussian_vectors() -> None:
    directions = orthogonal_directions(20, 8, torch.Generator().manual_seed(0))
    assert directions.shape == (20, 8)
    for block in directions.split(8):
        products = block @ block.T
        assert (products - products.diag().diag()).abs().max() < 1e-5
    many = orthogonal_directions(8000, 8, torch.Generator().manual_seed(0))
    assert float(many.square().sum(1).mean()) == pytest.approx(8, rel=0.02)
    torch.testing.assert_close(many.mean(0), torch.zeros(8), rtol=0, atol=0.05)  # no direction is preferred


def test_the_seed_decides_and_every_block_draws_its_own() -> None:
    first, second = performer(16, 0), performer(16, 0)
    assert torch.equal(first.directions, second.directions)
    assert not torch.equal(first.directions, PerformerAttention(WIDTH, HEADS, SEQUENCE, 16).double().directions)


def test_features_are_saved_and_never_redrawn() -> None:
    mixer = performer(16, 0).train()
    before = mixer.state_dict()["directions"].clone()
    mixer(tokens()).sum().backward()
    assert torch.equal(mixer.directions, before)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_tokens_stay_finite_in_half_precision(dtype: torch.dtype) -> None:
    mixer = performer(64, 0, epsilon=1e-4).to(dtype)
    assert mixer(30 * tokens().to(dtype)).isfinite().all()
