"""Bilinear values at points exactly as `grid_sample` has them with align_corners=False and zeros outside the image."""

from __future__ import annotations

from torch import Tensor


def split(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """A coordinate in [-1, 1] over `size` pixels -> the pixel after it, and that pixel's share in [0, 1).

    Pixels, int32, are counted from 1, so that 0 and size + 1 lie outside: the position ((coordinate + 1) size - 1) / 2
    among pixels that are counted from 0 starts at -1/2.
    """
    after = coordinate.add(1).mul_(size / 2).add_(0.5)
    pixel = after.int()
    return pixel, after.sub_(pixel)
