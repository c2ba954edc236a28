"""Nyström attention against its formula, its limits, another implementation of it, and its cost."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention
from transformers.models.nystromformer.configuration_nystromformer import NystromformerConfig
from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

from luma_cli.isotropic.attention import NystromAttention, landmarks, nystrom, pseudo_inverse
from luma_cli.isotropic.vit import Sequence
from luma_cli.measure.count import count


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads(num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys, values = (draw(2, 3, num_tokens, 4, seed=seed) for seed in range(3))
    return queries, keys, values


def slow(queries: Tensor, keys: Tensor, values: Tensor, count_: int) -> Tensor:
    """The formula for one head [N, d] with an exact pseudo-inverse, kernels made one entry at a time."""

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        entries = [[math.exp(float(a @ b) / math.sqrt(len(a))) for b in right] for a in left]
        return torch.tensor([[entry / sum(row) for entry in row] for row in entries], dtype=torch.float64)

    of_queries, of_keys = landmarks(queries, count_), landmarks(keys, count_)
    between = torch.linalg.pinv(kernel(of_queries, of_keys))
    return kernel(queries, of_keys) @ between @ kernel(of_queries, keys) @ values


@pytest.mark.parametrize("count_", [1, 3, 4])
def test_is_the_formula_with_the_inverse_converged(count_):
    queries, keys, values = heads(10)
    expected = torch.stack(
        [
            torch.stack([slow(*head, count_) for head in zip(*image, strict=True)])
            for image in zip(*heads(10), strict=True)
        ]
    )
    torch.testing.assert_close(nystrom(queries, keys, values, count_, num_steps=40), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("num_tokens", "count_"), [(12, 4), (13, 4), (197, 64), (5, 8), (7, 7)])
def test_landmarks_are_means_of_runs(num_tokens, count_):
    tokens = draw(2, num_tokens, 3)
    number = min(num_tokens, count_)
    lengths = [num_tokens // number + (index >= number - num_tokens % number) for index in range(number)]
    starts = [sum(lengths[:index]) for index in range(number)]
    expected = torch.stack([tokens[:, s : s + n].mean(1) for s, n in zip(starts, lengths, strict=True)], dim=1)
    assert sum(lengths) == num_tokens
    torch.testing.assert_close(landmarks(tokens, count_), expected)


def test_the_inverse_converges_to_the_pseudo_inverse():
    matrix = draw(2, 3, 8, 8).softmax(-1)
    exact = torch.linalg.pinv(matrix)
    errors = [float((pseudo_inverse(matrix, steps) - exact).norm() / exact.norm()) for steps in (2, 6, 12, 24)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


def test_as_many_landmarks_as_tokens_approach_softmax_attention():
    queries, keys, values = heads(12)
    exact = scaled_dot_product_attention(queries, keys, values)

    def error(num_landmarks: int, num_steps: int) -> float:
        return float((nystrom(queries, keys, values, num_landmarks, num_steps) - exact).norm() / exact.norm())

    assert error(12, 40) < 1e-9
    assert error(64, 40) < 1e-9  # fewer tokens than landmarks: the same
    assert error(12, 40) < error(12, 6) < 1
    assert error(3, 40) > 0.1


def test_agrees_with_the_implementation_in_transformers():
    torch.manual_seed(0)
    config = NystromformerConfig(
        hidden_size=12, num_attention_heads=1, num_landmarks=8, segment_means_seq_len=24, conv_kernel_size=5,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    theirs = NystromformerSelfAttention(config).double().eval()
    ours = NystromAttention(12, 1, Sequence((4, 6)), num_landmarks=8, kernel_size=5).double()
    ours.load_state_dict(
        {
            "qkv.weight": torch.cat([theirs.query.weight, theirs.key.weight, theirs.value.weight]),
            "qkv.bias": torch.cat([theirs.query.bias, theirs.key.bias, theirs.value.bias]),
            "proj.weight": torch.eye(12),
            "proj.bias": torch.zeros(12),
            "conv.weight": theirs.conv.weight,
        }
    )
    tokens = draw(1, 24, 12)  # one image, one head: their start of the inverse is taken over all of both
    torch.testing.assert_close(ours(tokens), theirs(tokens)[0])


def test_the_skip_is_a_convolution_along_the_tokens_of_a_head():
    mixer = NystromAttention(6, 2, Sequence((3, 3), 1), kernel_size=3).double()
    queries, keys, values = (draw(1, 2, 10, 3, seed=seed) for seed in range(3))
    taps = mixer.conv.weight.detach()[:, 0, :, 0]
    expected = torch.zeros_like(values)
    for head in range(2):
        for token in range(10):
            for tap in range(3):
                if 0 <= token + tap - 1 < 10:
                    expected[0, head, token] += taps[head, tap] * values[0, head, token + tap - 1]
    torch.testing.assert_close(mixer.conv(values), expected)
    mixer.qkv, mixer.proj = (
        _Fixed(torch.cat([_joined(part) for part in (queries, keys, values)], dim=-1)),
        nn.Identity(),
    )
    mixed = nystrom(queries, keys, values, 64, 6)
    torch.testing.assert_close(mixer(torch.zeros(1, 10, 6)), _joined(mixed + expected))


def test_the_skip_of_values_follows_the_last_layer():
    mixer = NystromAttention(6, 2, Sequence((3, 3)), skip="value")
    mixer.proj = nn.Linear(6, 6)
    nn.init.zeros_(mixer.proj.weight)
    nn.init.zeros_(mixer.proj.bias)
    tokens = torch.randn(2, 9, 6)
    torch.testing.assert_close(mixer(tokens), mixer.qkv(tokens)[..., 12:])
    assert [name for name, _ in mixer.named_parameters() if name.startswith("conv")] == []


class _Fixed(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> Tensor:
        return self.value


def _joined(parts: Tensor) -> Tensor:
    return parts.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("side", [14, 32, 64])
@pytest.mark.parametrize("skip", ["convolution", "value"])
def test_cost_in_closed_form(side, skip):
    width, num_heads, num_landmarks, steps, taps = 192, 3, 64, 6, 35
    with torch.device("meta"):
        mixer = NystromAttention(width, num_heads, Sequence((side, side), 1), skip=skip)
    tokens = side * side + 1
    expected = 4 * tokens * width**2 + 4 * num_landmarks * tokens * width + 2 * num_landmarks**2 * width
    expected += 4 * steps * num_heads * num_landmarks**3 + (taps * tokens * width if skip == "convolution" else 0)
    counted = count(mixer, torch.empty(1, tokens, width, device="meta"))
    assert (counted.macs, counted.complete) == (expected, True)


def test_an_even_convolution_is_refused():
    with pytest.raises(ValueError, match="kernel_size 4 has no middle; choose an odd one"):
        NystromAttention(6, 2, Sequence((3, 3)), kernel_size=4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near_float32(dtype):
    torch.manual_seed(0)
    mixer, tokens = NystromAttention(32, 2, Sequence((16, 16), 1)), torch.randn(2, 257, 32)
    with torch.no_grad():
        expected, found = mixer(tokens), mixer.to(dtype)(tokens.to(dtype)).float()
    assert float((found - expected).norm() / expected.norm()) < 0.05


def test_landmarks_lose_softmax_attention_as_resolution_grows():
    """The same smooth queries, keys and values of 16 heads on finer grids, as docs/understand/mixers.md states."""
    errors, of_the_mean = [], []
    for side in (14, 32, 64):
        fields = (draw(16, 32, 4, 4, seed=seed).float() for seed in range(3))  # in float64 it takes 13 s
        resized = (interpolate(field, (side, side), mode="bicubic").flatten(2).mT[None] for field in fields)
        queries, keys, values = resized
        exact = scaled_dot_product_attention(queries, keys, values)
        approximate = nystrom(queries, keys, values, num_landmarks=64, num_steps=6)
        errors.append(float((approximate - exact).norm() / exact.norm()))
        of_the_mean.append(float((values.mean(2, keepdim=True) - exact).norm() / exact.norm()))
    assert errors == pytest.approx([0.05, 0.48, 0.68], abs=0.005)
    assert of_the_mean == pytest.approx([0.61] * 3, abs=0.006)
