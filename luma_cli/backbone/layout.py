"""Layouts of a patch map: `tokens` [B,N,D], `nhwc` [B,H,W,D], `nchw` [B,D,H,W]."""

from __future__ import annotations

from torch import Tensor

from luma_cli.catalogue.rules import Layout


def to_tokens(grid: Tensor, layout: Layout) -> Tensor:
    """Tokens [B,N,D] of a map in `layout`."""
    if layout == "nchw":
        return grid.flatten(2).transpose(1, 2)
    return grid.flatten(1, 2) if layout == "nhwc" else grid


def from_tokens(tokens: Tensor, layout: Layout, size: tuple[int, int]) -> Tensor:
    """Map in `layout` of tokens [B,N,D]; `size` is H, W with H * W = N."""
    batch, _, width = tokens.shape
    if layout == "tokens":
        return tokens
    if layout == "nhwc":
        return tokens.reshape(batch, *size, width)
    return tokens.transpose(1, 2).reshape(batch, width, *size)


def channels_shape(layout: Layout, width: int) -> tuple[int, ...]:
    """Shape that lets a vector of `width` channels multiply a map in `layout`."""
    return (width, 1, 1) if layout == "nchw" else (width,)
