"""A pre-norm transformer block whose token mixer and feed-forward part are given (arXiv 2010.11929, section 3.1).

B batch, N tokens, C channels. The names of its parts are those of timm's `Block`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.layers.layer_scale import LayerScale
from torch import Tensor, nn

from luma_cli.isotropic.mixer import Sequence, TokenMixer

MakeMixer = Callable[[int, int, Sequence], TokenMixer]
# What timm's constructor says about attention and no mixer takes, as timm has it when nothing is said.
_ATTENTION = {
    "qkv_bias": True,
    "qk_norm": False,
    "proj_bias": True,
    "scale_attn_norm": False,
    "scale_mlp_norm": False,
    "attn_drop": 0.0,
}


class MixerBlock(nn.Module):
    """tokens + mixer(norm(tokens)), then tokens + mlp(norm(tokens)); LayerScale and stochastic depth as in timm.

    Raises ValueError for a setting of timm's that is about attention's own layers.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mixer: MakeMixer,
        sequence: Sequence,
        mlp_ratio: float,
        init_values: float | None,
        proj_drop: float,
        drop_path: float,
        norm_layer: Callable[..., nn.Module],
        act_layer: Callable[..., nn.Module],
        mlp_layer: Callable[..., nn.Module],
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **attention: Any,
    ) -> None:
        super().__init__()
        _refuse(attention)
        self.norm1 = norm_layer(dim)
        self.attn = mixer(dim, num_heads, sequence)
        self.ls1 = LayerScale(dim, init_values=init_values) if init_values else nn.Identity()
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = mlp_layer(in_features=dim, hidden_features=int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.ls2 = LayerScale(dim, init_values=init_values) if init_values else nn.Identity()
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()
        self.to(device=device, dtype=dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        tokens = tokens + self.drop_path1(self.ls1(self.attn(self.norm1(tokens))))
        result: Tensor = tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))
        return result


def _refuse(attention: dict[str, Any]) -> None:
    asked = [name for name, usual in _ATTENTION.items() if attention.get(name, usual) != usual]
    if asked:
        given = ", ".join(f"{name}={attention[name]}" for name in asked)
        raise ValueError(f"{given} is about attention, in whose place a token mixer stands; leave it out")
