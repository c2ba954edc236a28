"""A pre-norm transformer block whose token mixer and feed-forward part are given (arXiv 2010.11929, section 3.1).

B batch, N tokens, C channels. The names of its parts are those of timm's `Block`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.layers.drop import DropPath
from timm.layers.layer_scale import LayerScale
from torch import Tensor, nn

from luma_cli.isotropic.mixer import Sequence, TokenMixer

MakeMixer = Callable[[int, int, Sequence], TokenMixer]


class MixerBlock(nn.Module):
    """tokens + mixer(norm(tokens)), then tokens + mlp(norm(tokens)); LayerScale and stochastic depth as in timm."""

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
        **_unused: Any,  # what timm's constructor says about attention
    ) -> None:
        super().__init__()
        self.norm1 = norm_layer(dim)
        self.attn = mixer(dim, num_heads, sequence)
        self.ls1 = LayerScale(dim, init_values=init_values) if init_values else nn.Identity()
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = mlp_layer(in_features=dim, hidden_features=int(dim * mlp_ratio), act_layer=act_layer, drop=proj_drop)
        self.ls2 = LayerScale(dim, init_values=init_values) if init_values else nn.Identity()
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        tokens = tokens + self.drop_path1(self.ls1(self.attn(self.norm1(tokens))))
        result: Tensor = tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))
        return result
