"""A Vision Transformer that merges similar tokens in every block (ToMe, arXiv 2210.09461, section 3).

Shapes never depend on values: only sort, gather and scatter, so it runs on meta and inside CUDA graphs.
B batch, N tokens of the image, M tokens that are left, P prefix tokens that never merge; C channels, d of a head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from timm.models import checkpoint
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from luma_cli.isotropic.vit import IsotropicViT, MixerBlock, QkvMixer, Sequence, patch_grid, widened


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


class Merged(NamedTuple):
    """Tokens [B, M, C], the patches behind each [B, M], and which of them every token of the image became [B, N].

    None where nothing has merged yet.
    """

    tokens: Tensor
    sizes: Tensor | None = None
    places: Tensor | None = None


class ProportionalAttention(QkvMixer):
    """softmax(Q K^T / sqrt(d) + log s) V: a key counts as often as the s patches behind it (equation 1).

    Every token sees every other; without merged tokens this is timm's attention, with its parameter names.
    Multiply-adds: 4 M C^2 + 2 M^2 C.
    """

    def forward(self, tokens: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """[B, M, C] and sizes [B, M] -> [B, M, C] and the keys that matching compares, mean of all heads [B, M, d]."""
        queries, keys, values = self.in_heads(tokens)
        log_sizes = None if sizes is None else sizes.log().to(queries.dtype)[:, None, None]
        mixed = scaled_dot_product_attention(queries, keys, values, attn_mask=log_sizes)
        return self.out_of_heads(mixed), keys.mean(1)


class MergingBlock(MixerBlock):
    """A block that merges `num_merged` pairs of tokens between attention and FFN (section 3).

    Matching adds M_a M_b d multiply-adds, M_a and M_b being the halves of the patches; the FFN works on what is left.
    """

    attn: ProportionalAttention

    def __init__(self, *, sequence: Sequence, num_merged: int, **arguments: Any) -> None:
        super().__init__(sequence=sequence, **arguments)
        self.num_prefix = sequence.num_prefix
        self.num_merged = num_merged

    def forward(self, tokens: Tensor, sizes: Tensor | None = None, places: Tensor | None = None) -> Merged:  # type: ignore[override]  # tokens come with what was merged
        """Tokens [B, M, C] with sizes [B, M] and places [B, N] -> the same after this block's merging."""
        mixed, keys = self.attn(self.norm1(tokens), sizes)
        tokens = tokens + self.drop_path1(self.ls1(mixed))
        num_merged = min(self.num_merged, (tokens.shape[1] - self.num_prefix) // 2)
        if num_merged > 0:
            found = match(keys.detach(), num_merged, self.num_prefix)
            tokens, sizes = merge(tokens, sizes, found, tokens.shape[1] - num_merged)
            places = found if places is None else found.gather(1, places)
        tokens = tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))
        return Merged(tokens, sizes, places)


class ToMeViT(IsotropicViT):
    """A VisionTransformer of MergingBlocks; all that leaves it has a token for every patch again, as in any ViT.

    kept: share of the patches that is left after the last block. Each block merges the same number of pairs,
    round((1 - kept) patches / depth): 8 at 224 pixels in 12 blocks, as the paper's r = 8. The share and not r is the
    same at every resolution and depth: r = 8 would merge 2 % of the patches of 1024 pixels in 12 blocks, but all except
    6 of those of 224 in 24. No parameter depends on the number of tokens. A patch gets the value of the token that it
    became part of (`Merged.places`), so details finer than the merged tokens are lost to the map.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        *,
        depth: int = 12,
        kept: float = 0.5,
        **arguments: Any,
    ) -> None:
        if arguments.get("dynamic_img_size"):
            raise ValueError("the number of pairs that merge belongs to one image size; leave dynamic_img_size out")
        rows, columns = patch_grid(img_size, patch_size)
        self._share = (1 - kept) / depth
        block = partial(MergingBlock, num_merged=round(self._share * rows * columns))
        super().__init__(img_size, patch_size, mixer=ProportionalAttention, block_fn=block, depth=depth, **arguments)

    def set_input_size(
        self, img_size: tuple[int, int] | None = None, patch_size: tuple[int, int] | None = None
    ) -> None:
        """As timm's: another resolution from now on, of whose patches each block merges the same share."""
        super().set_input_size(img_size, patch_size)
        for block in self.blocks:
            block.num_merged = round(self._share * self.patch_embed.num_patches)

    def states(self, images: Tensor, blocks: Iterable[nn.Module]) -> Iterator[Merged]:
        """Images [B, 3, H, W] -> what leaves each of `blocks`, in order."""
        state = Merged(self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(images)))))
        for block in blocks:
            # re-entrant checkpointing gives back a plain tuple
            state = Merged(*checkpoint(block, *state)) if self.grad_checkpointing else block(*state)
            yield state

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Images [B, 3, H, W] -> tokens [B, N, C] after the final norm. Raises ValueError for a mask."""
        _refuse_mask(attn_mask, is_causal)
        *_, last = self.states(x, self.blocks)
        return spread(self.norm(last.tokens), last.places)

    def forward_intermediates(  # type: ignore[override]  # no output_dict
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """As timm's: maps [B, C, H, W] or tokens [B, N, C] of the blocks `indices`, with the final tokens before.

        Raises ValueError for a mask.
        """
        _refuse_mask(attn_mask, is_causal)
        wanted, last = feature_take_indices(len(self.blocks), indices)
        found: list[Any] = []
        for index, state in enumerate(self.states(x, self.blocks[: last + 1] if stop_early else self.blocks)):
            if index in wanted:
                tokens = spread(self.norm(state.tokens) if norm else state.tokens, state.places)
                patches = tokens[:, self.num_prefix_tokens :]
                if output_fmt == "NCHW":
                    grid = self.patch_embed.dynamic_feat_size(x.shape[-2:])
                    patches = patches.reshape(len(x), *grid, -1).permute(0, 3, 1, 2).contiguous()
                found.append((patches, tokens[:, : self.num_prefix_tokens]) if return_prefix_tokens else patches)
        return found if intermediates_only else (spread(self.norm(state.tokens), state.places), found)


def _refuse_mask(attn_mask: Tensor | None, is_causal: bool) -> None:
    if attn_mask is not None or is_causal:
        raise ValueError("merged tokens take no attention mask; leave attn_mask and is_causal out")
