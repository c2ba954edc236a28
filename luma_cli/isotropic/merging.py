"""Which tokens merge, and what they become: bipartite soft matching (ToMe, arXiv 2210.09461, section 3).

Shapes never depend on values: only sort, gather and scatter, so it runs on meta and inside CUDA graphs.
B batch, N tokens before, M after, of which P prefix tokens that never merge; d channels of a head, C of a token.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from luma_cli.isotropic.precision import widened


def match(keys: Tensor, num_merged: int, num_prefix: int) -> Tensor:
    """Keys [B, N, d] -> for every token its place [B, N] among the N - num_merged that remain.

    Patches are divided alternately into two halves A and B; every token of A finds its most similar one in B (cosine of
    their keys), and the `num_merged` most similar pairs become one token. What remains is ordered prefix, A, B. Equal
    similarities are settled by position.
    """
    in_a = num_prefix % 2  # the authors alternate from the first token on, prefix included
    patches = normalize(widened(keys[:, num_prefix:]), dim=-1)
    similarity, partner = (patches[:, in_a::2] @ patches[:, 1 - in_a :: 2].mT).max(dim=-1)
    rank = similarity.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    merges = rank < num_merged
    num_kept = merges.shape[1] - num_merged
    places = torch.arange(keys.shape[1], device=keys.device).repeat(keys.shape[0], 1)
    places[:, num_prefix + in_a :: 2] = num_prefix + torch.where(
        merges, num_kept + partner, (~merges).cumsum(dim=-1) - 1
    )
    num_b = patches.shape[1] - merges.shape[1]
    places[:, num_prefix + 1 - in_a :: 2] = num_prefix + num_kept + torch.arange(num_b, device=keys.device)
    return places


def merge(tokens: Tensor, sizes: Tensor | None, places: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, N, C] that share a place become their mean, weighted by size: [B, M, C] and their sizes [B, M].

    sizes [B, N]: patches behind each token, in float32, which counts them exactly; None means one each.
    """
    wide = widened(tokens)
    if sizes is None:
        sizes = wide.new_ones(wide.shape[:2])
    index = places[..., None].expand_as(tokens)
    totals = sizes.new_zeros(len(tokens), num_tokens).scatter_add(1, places, sizes)
    sums = wide.new_zeros(len(tokens), num_tokens, tokens.shape[2]).scatter_add(1, index, wide * sizes[..., None])
    return (sums / totals[..., None]).to(tokens.dtype), totals


def spread(tokens: Tensor, places: Tensor | None) -> Tensor:
    """Tokens [B, M, C] back at every place that became part of them: [B, N, C]; None: nothing was merged."""
    return tokens if places is None else tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))
