"""Tables tied to the size of the image, which timm's checkpoint filters leave as they are: resampled to the new size.

Absolute position embeddings are resampled as timm does for ViTs (bicubic, antialiased), relative ones as the model's
own code does while it runs (linear, `vision_transformer_sam.get_rel_pos`) or as timm's other filters do (bias tables).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch.nn.functional as F
from timm.layers.pos_embed import resample_abs_pos_embed, resample_abs_pos_embed_nhwc
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from torch import Tensor, nn

_TABLE = "relative_position_bias_table"


def resampled(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with its tables of another size brought to the size in `model`; what cannot be is left as it was."""
    changed = dict(state)
    for key, wanted in model.state_dict().items():
        if key in state and state[key].shape != wanted.shape:
            changed[key] = _table(model, key, state[key], wanted)
    return changed


def _table(model: nn.Module, key: str, value: Tensor, wanted: Tensor) -> Tensor:
    owner, _, name = key.rpartition(".")
    if value.ndim != wanted.ndim:
        return value
    if name == "pos_embed":
        return _positions(value, wanted)
    if name in ("rel_pos_h", "rel_pos_w") and value.shape[1:] == wanted.shape[1:]:
        return F.interpolate(value.T[None].float(), size=len(wanted), mode="linear")[0].T.to(value.dtype)
    if name == _TABLE and value.shape[-1] == wanted.shape[-1] and _is_square(len(value)):
        window: tuple[int, int] = model.get_submodule(owner).window_size  # type: ignore[assignment]
        table: Tensor = resize_rel_pos_bias_table(value, window, tuple(wanted.shape))
        return table
    return value


def _positions(value: Tensor, wanted: Tensor) -> Tensor:
    """[1,N,D] without prefix tokens on a square grid, or [1,H,W,D]."""
    if value.shape[-1] != wanted.shape[-1]:
        return value
    if value.ndim == 4:
        grid: Tensor = resample_abs_pos_embed_nhwc(value, list(wanted.shape[1:3]))
        return grid
    if value.ndim == 3 and _is_square(value.shape[1]) and _is_square(wanted.shape[1]):
        side = isqrt(wanted.shape[1])
        tokens: Tensor = resample_abs_pos_embed(value, [side, side], num_prefix_tokens=0)
        return tokens
    return value


def _is_square(number: int) -> bool:
    return isqrt(number) ** 2 == number
