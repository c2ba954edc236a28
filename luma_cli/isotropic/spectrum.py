"""Tokens of a patch grid as two-dimensional frequencies, and back (GFNet and AFNO).

B batch, H W patches, N = H W tokens, C channels. Real tokens have a symmetric spectrum, of which the W // 2 + 1
columns of frequencies from zero up are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from luma_cli.isotropic.mixer import Sequence
from luma_cli.isotropic.precision import widened


def grid_of(sequence: Sequence, mixer: str) -> tuple[int, int]:
    """Rows and columns of `sequence`. Raises ValueError when it holds more than the patch grid."""
    if sequence.num_prefix:
        raise ValueError(
            f"{mixer} needs the patch grid alone, got {sequence.num_prefix} prefix token(s); "
            "build it with class_token=False, global_pool='avg'"
        )
    return sequence.grid


def num_columns(width: int) -> int:
    """Columns kept of the spectrum of a grid of `width` columns.

    >>> num_columns(14)
    8
    """
    return width // 2 + 1


def to_spectrum(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, N, C] -> complex [B, H, W // 2 + 1, C] in float32 or more, the transform unitary.

    Raises ValueError when the tokens do not fill `grid`.
    """
    if tokens.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"{tokens.shape[1]} tokens, expected {grid[0]} x {grid[1]}; build the model at this img_size")
    spectrum: Tensor = torch.fft.rfft2(widened(tokens).reshape(-1, *grid, tokens.shape[2]), dim=(1, 2), norm="ortho")
    return spectrum


def from_spectrum(spectrum: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of `to_spectrum`: complex [B, H, W // 2 + 1, C] -> real tokens [B, N, C]."""
    tokens: Tensor = torch.fft.irfft2(spectrum, s=grid, dim=(1, 2), norm="ortho")
    return tokens.flatten(1, 2)
