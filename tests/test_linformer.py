"""Linformer is softmax attention when nothing is projected away, and what it does at another resolution is known."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention

from luma_cli.isotropic.attention import LinformerAttention
from luma_cli.isotropic.vit import Sequence

SEQUENCE = Sequence((3, 3), 1)
TOKENS = torch.randn(2, 10, 12, generator=torch.Generator().manual_seed(0))


def test_identity_mixtures_give_softmax_attention() -> None:
    mixer = LinformerAttention(12, 3, SEQUENCE, num_rows=10).eval()
    mixer.key_mixtures.data = mixer.value_mixtures.data = torch.eye(10)
    queries, keys, values = map(mixer.split_heads, mixer.qkv(TOKENS).chunk(3, dim=-1))
    expected = mixer.proj(mixer.merge_heads(scaled_dot_product_attention(queries, keys, values)))
    torch.testing.assert_close(mixer(TOKENS), expected)


def test_it_is_its_formula() -> None:
    """Equation 7, head by head with explicit matrices."""
    mixer = LinformerAttention(12, 3, SEQUENCE, num_rows=4).eval()
    to_query, to_key, to_value = mixer.qkv.weight.chunk(3)
    expected = torch.zeros_like(TOKENS)
    for image in range(2):
        for head in range(3):
            own = slice(4 * head, 4 * head + 4)
            query = TOKENS[image] @ to_query[own].T
            key = mixer.key_mixtures.T @ (TOKENS[image] @ to_key[own].T)
            value = mixer.value_mixtures.T @ (TOKENS[image] @ to_value[own].T)
            expected[image, :, own] = torch.softmax(query @ key.T / 2, dim=-1) @ value
    torch.testing.assert_close(mixer(TOKENS), mixer.proj(expected))


def test_mixtures_are_resampled_over_the_grid_and_the_class_token_s_row_is_kept() -> None:
    mixer = LinformerAttention(12, 3, Sequence((6, 6), 1), num_rows=4)
    flat = torch.ones(10, 4)
    flat[0] = 7.0
    resampled = mixer.resampled("key_mixtures", flat)
    assert resampled.shape == mixer.key_mixtures.shape
    assert torch.equal(resampled[0], flat[0])
    torch.testing.assert_close(resampled[1:], torch.ones(36, 4))
    ramp = torch.arange(3.0).repeat_interleave(3).unsqueeze(1).expand(9, 4)  # grows from row to row of the grid
    rows = mixer.resampled("value_mixtures", torch.cat([flat[:1], ramp]))[1:, 0].reshape(6, 6)
    torch.testing.assert_close(rows, torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.0]).unsqueeze(1).expand(6, 6))


def test_mixtures_of_no_square_grid_are_left_for_loading_to_refuse() -> None:
    mixer = LinformerAttention(12, 3, SEQUENCE, num_rows=4)
    assert mixer.resampled("key_mixtures", torch.ones(8, 4)).shape == (8, 4)
