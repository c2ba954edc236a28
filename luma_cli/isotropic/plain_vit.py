"""Checkpoints of timm's plain ViTs, brought to the form that luma's own ViTs have, without changing what they compute.

Token merging (`tome.py`) has the parameters of a plain ViT and is meant for weights that were trained as one.
"""

from __future__ import annotations

from math import isqrt

from torch import Tensor


def without_class_position(state: dict[str, Tensor], num_patches: int) -> dict[str, Tensor]:
    """`state` with the class token's position, where it has one, added to the token: the model only ever sees the sum.

    A position embedding [1, 1 + h h, C] is taken to have one, [1, h h, C] and that of `num_patches` of the model, such
    as [1, 2 x 5, C], to have none.
    """
    token, positions = state.get("cls_token"), state.get("pos_embed")
    if token is None or positions is None or positions.ndim != 3:
        return state
    if positions.shape[1] == num_patches or not _is_square(positions.shape[1] - 1):
        return state
    return {**state, "cls_token": token + positions[:, :1], "pos_embed": positions[:, 1:]}


def _is_square(number: int) -> bool:
    return number > 0 and isqrt(number) ** 2 == number
