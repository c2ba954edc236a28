"""Parameters bound to the number of tokens, brought from one sequence to another by linear interpolation.

Values are interpolated, never rescaled, as the benchmark does (arXiv 2308.09372, its code's `set_image_res`): what sums
over tokens grows with their number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from luma_cli.isotropic.mixer import Sequence


def over_grid(value: Tensor, sequence: Sequence, dim: int) -> Tensor:
    """`value` with one entry per token along `dim`, bilinear over the patch grid; entries of prefix tokens are kept.

    The grid that it was stored for is taken to be square. One that cannot be comes back as it is.
    """
    old_length = value.shape[dim] - sequence.num_prefix
    side = math.isqrt(max(old_length, 0))
    if value.shape[dim] == sequence.length or side == 0 or side * side != old_length:
        return value
    last = value.movedim(dim, -1)
    prefix, patches = last[..., : sequence.num_prefix], last[..., sequence.num_prefix :]
    maps = patches.reshape(1, -1, side, side).float()
    resized = interpolate(maps, size=sequence.grid, mode="bilinear", align_corners=False).to(value.dtype)
    merged = torch.cat([prefix, resized.reshape(*last.shape[:-1], -1)], dim=-1)
    return merged.movedim(-1, dim).contiguous()


def along(value: Tensor, size: int, dim: int) -> Tensor:
    """`value` with `size` entries along `dim`, linear between neighbours."""
    if value.shape[dim] == size:
        return value
    last = value.movedim(dim, -1)
    resized = interpolate(last.reshape(1, -1, last.shape[-1]).float(), size=size, mode="linear", align_corners=False)
    return resized.reshape(*last.shape[:-1], size).movedim(-1, dim).to(value.dtype).contiguous()
