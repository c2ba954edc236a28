"""What heads are made of: the cross-attention of queries, the upscaling of the map, and class and mask predictions.

Sources: arXiv 2607.00687, the side stream (cross-attention); arXiv 2503.19108, section 3.1 (upscaling, predictions).
B batch, K queries, N = h w patch tokens, D channels, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from luma_cli.catalogue.heads import HeadConfig

NORM_EPS = 1e-6  # as timm's transformers


def _unchanged(tokens: Tensor) -> Tensor:
    return tokens


class CrossAttention(nn.Module):
    """Pre-norm, unmasked multi-head cross-attention without positions, with biases unless `config` leaves them out."""

    def __init__(
        self, width: int, num_heads: int, tokens_width: int, config: HeadConfig, *, shares_norm: bool = False
    ) -> None:
        """tokens_width: channels of the tokens, 0 for those of the queries. shares_norm: norms come with each call."""
        super().__init__()
        tokens_width = tokens_width or width
        self.num_heads = num_heads
        self.norm_queries = None if shares_norm else nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_tokens = None if shares_norm else nn.LayerNorm(tokens_width, eps=NORM_EPS)
        self.query = nn.Linear(width, width, bias=config.qkv_bias)
        # one matrix for both: one kernel less, same parameters
        self.key_value = nn.Linear(tokens_width, 2 * width, bias=config.qkv_bias)
        self.out = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width)) if config.layer_scale else None

    def forward(self, queries: Tensor, tokens: Tensor, shared_norm: Callable[[Tensor], Tensor] = _unchanged) -> Tensor:
        """Queries and tokens [B, N, D] -> queries [B, K, D].

        Queries [K, D] are the same for every image: what depends on them alone is then computed once per call, whatever
        the batch. Queries [B, K, D] are those of each image.
        """
        num_queries, width = queries.shape[-2:]
        batch = tokens.shape[0]
        normed = (
            shared_norm(queries.view(-1, num_queries, width))
            if self.norm_queries is None
            else self.norm_queries(queries)
        )
        asked = self.query(normed).view(-1, num_queries, self.num_heads, width // self.num_heads)
        tokens = shared_norm(tokens) if self.norm_tokens is None else self.norm_tokens(tokens)
        offered = self.key_value(tokens).view(batch, -1, 2, self.num_heads, width // self.num_heads)
        keys, values = offered.permute(2, 0, 3, 1, 4).unbind(0)
        read = scaled_dot_product_attention(asked.transpose(1, 2).expand(batch, -1, -1, -1), keys, values)
        update: Tensor = self.out(read.transpose(1, 2).reshape(batch, num_queries, width))
        return queries + (update if self.scale is None else self.scale * update)


def _over_channels(norm: nn.LayerNorm, pixels: Tensor) -> Tensor:
    """[B, D, h, w], normed over D."""
    normed: Tensor = norm(pixels.permute(0, 2, 3, 1))
    return normed.permute(0, 3, 1, 2)


class ScaleBlock(nn.Module):
    """Twice the resolution: transposed 2x2 convolution, GELU, depthwise 3x3 without bias, norm over channels.

    Maps are NCHW in shape and channels-last in memory, so that the norm copies nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
        self.smooth = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, D, 2h, 2w]."""
        return _over_channels(self.norm, self.smooth(gelu(self.enlarge(pixels))))


class ShrinkBlock(nn.Module):
    """Half the resolution: the twin of `ScaleBlock`, with a 2x2 convolution of stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(width, width, kernel_size=2, stride=2)
        self.smooth = nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, D, h / 2, w / 2]."""
        return _over_channels(self.norm, self.smooth(gelu(self.shrink(pixels))))


class HeadOutput(NamedTuple):
    """class_logits [B, K, C + 1], the last class being "no object"; mask_logits [B, K, H / s, W / s], mask stride s."""

    class_logits: Tensor
    mask_logits: Tensor


class MaskModule(nn.Module):
    """A class per query, and masks as products of its mask embedding with the upscaled map."""

    def __init__(self, width: int, num_classes: int, num_scale_blocks: int) -> None:
        super().__init__()
        self.classify = nn.Linear(width, num_classes + 1)
        self.mask = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.upscale = nn.Sequential(*(ScaleBlock(width) for _ in range(num_scale_blocks)))

    def predict(self, queries: Tensor, patches: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> HeadOutput:
        """Normed queries [B, K, W] and patches [B, N, W] on a grid (h, w) -> a prediction with masks of `size`.

        The bilinear finish for strides that no doubling meets acts on the K logits, not on the W channels: resizing
        is linear, so both orders give the same masks, and K is the smaller.
        """
        batch, _, width = patches.shape
        pixels = self.upscale(patches.reshape(batch, *grid, width).permute(0, 3, 1, 2))
        masks = (self.mask(queries) @ pixels.flatten(2)).view(*queries.shape[:2], *pixels.shape[2:])
        if masks.shape[2:] != size:
            masks = interpolate(masks, size, mode="bilinear", align_corners=False)
        return HeadOutput(self.classify(queries), masks)
