"""Each Synthesizer is the softmax of the matrix that its paragraph of the paper describes, times the values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from luma_cli.isotropic.attention import (
    DenseSynthesizer,
    FactorisedDenseSynthesizer,
    FactorisedRandomSynthesizer,
    RandomSynthesizer,
    Synthesizer,
)
from luma_cli.isotropic.vit import Sequence

WIDTH, HEADS, SEQUENCE = 12, 3, Sequence((3, 3), 1)
LENGTH = SEQUENCE.length
TOKENS = torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))
ALL = (DenseSynthesizer, RandomSynthesizer, FactorisedRandomSynthesizer, FactorisedDenseSynthesizer)


def built(kind: type[Synthesizer], sequence: Sequence = SEQUENCE, **options: bool) -> Synthesizer:
    torch.manual_seed(2)
    mixer = kind(WIDTH, HEADS, sequence, **options).eval()
    for parameter in mixer.parameters():
        parameter.data = torch.randn(parameter.shape)
    return mixer


def mixed_by(mixer: Synthesizer, scores: Tensor) -> Tensor:
    """proj(softmax(scores) v) of scores [B, H, N, N], head by head."""
    values = mixer.value(TOKENS)
    heads = [torch.softmax(scores[:, head], dim=-1) @ values[..., 4 * head : 4 * head + 4] for head in range(HEADS)]
    return mixer.proj(torch.cat(heads, dim=-1))


def test_dense_scores_come_from_each_token_alone() -> None:
    mixer = built(DenseSynthesizer)
    scores = torch.zeros(2, HEADS, LENGTH, LENGTH)
    for image in range(2):
        for i in range(LENGTH):
            hidden = torch.relu(mixer.hidden.weight @ TOKENS[image, i] + mixer.hidden.bias)
            for head in range(HEADS):
                part = hidden[4 * head : 4 * head + 4]
                scores[image, head, i] = part @ mixer.weight[head] + mixer.bias[head, 0]
    torch.testing.assert_close(mixer(TOKENS), mixed_by(mixer, scores))


def test_random_scores_are_the_table_for_every_image() -> None:
    mixer = built(RandomSynthesizer)
    torch.testing.assert_close(mixer(TOKENS), mixed_by(mixer, mixer.table.expand(2, -1, -1, -1)))
    fixed = RandomSynthesizer(WIDTH, HEADS, SEQUENCE, fixed=True)
    assert "table" in dict(fixed.named_buffers())
    assert "table" not in dict(fixed.named_parameters())


def test_factorised_random_scores_have_rank_8() -> None:
    mixer = built(FactorisedRandomSynthesizer)
    scores = torch.einsum("hir,hrj->hij", mixer.seeing, mixer.seen)
    assert torch.linalg.matrix_rank(scores).tolist() == [8, 8, 8]
    torch.testing.assert_close(mixer(TOKENS), mixed_by(mixer, scores.expand(2, -1, -1, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("outer", [False, True])
def test_factorised_dense_scores_are_products_of_two_short_vectors(outer: bool) -> None:
    """10 tokens: 3 entries of a and 4 of b for 12 pairs, the last two unused."""
    mixer = built(FactorisedDenseSynthesizer, outer=outer)
    first, second = mixer.first(TOKENS), mixer.second(TOKENS)
    assert (first.shape[-1], second.shape[-1]) == (3 * HEADS, 4 * HEADS)
    scores = torch.zeros(2, HEADS, LENGTH, LENGTH)
    for head in range(HEADS):
        for j in range(LENGTH):
            other = j % 4 if outer else j // 3
            scores[:, head, :, j] = first[..., 3 * head + j // 4] * second[..., 4 * head + other]
    torch.testing.assert_close(mixer(TOKENS), mixed_by(mixer, scores))


def test_repeated_in_place_neighbours_share_a_score() -> None:
    """What the docs say: at 224 pixels 28 values serve 197 tokens; pairing all entries gives each its own."""
    sequence = Sequence((14, 14), 1)
    x = torch.randn(1, 197, WIDTH, generator=torch.Generator().manual_seed(0))
    in_place, outer = (built(FactorisedDenseSynthesizer, sequence, outer=outer).scores(x) for outer in (False, True))
    assert len(in_place[0, 0, 5].unique()) == 28
    assert len(outer[0, 0, 5].unique()) == 197


@pytest.mark.parametrize("kind", ALL)
def test_constant_parameters_stay_so_at_another_resolution(kind: type[Synthesizer]) -> None:
    """Interpolation neither scales nor shifts, so constant scores give the mean of the values at every resolution."""
    mixer, larger = built(kind), built(kind, Sequence((6, 6), 1))
    state = {key: torch.full_like(value, 0.5) for key, value in mixer.state_dict().items()}
    resampled = {key: larger.resampled(key, value) for key, value in state.items()}
    assert {key: value.shape for key, value in resampled.items()} == {
        key: value.shape for key, value in larger.state_dict().items()
    }
    assert all(torch.allclose(value, torch.tensor(0.5)) for value in resampled.values())


def test_heads_are_resampled_one_by_one() -> None:
    mixer = FactorisedDenseSynthesizer(WIDTH, HEADS, Sequence((6, 6), 1))
    by_head = torch.tensor([1.0, 2.0, 3.0]).repeat_interleave(3)
    assert mixer.resampled("first.bias", by_head).tolist() == [1.0] * 6 + [2.0] * 6 + [3.0] * 6


def test_weights_are_softmaxed_in_float32() -> None:
    mixer = built(RandomSynthesizer).half()
    mixer.table.data *= 1000  # exponentials of float16 scores overflow unless shifted and summed in float32
    assert mixer(TOKENS.half()).isfinite().all()
