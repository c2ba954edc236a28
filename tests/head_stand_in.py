"""A backbone small enough to know by heart, with the interface that the head is written against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from luma_cli.backbone.taps import Sites
from luma_cli.catalogue.rules import ModelRule
from luma_cli.catalogue.spec import BackboneSpec


class StandIn(nn.Module):
    """Patches, one residual FFN, one final norm; `ffn_kind` and `has_final_norm` switch what it offers."""

    def __init__(self, width=32, stride=16, resolution=64, num_heads=0, ffn=True, final_norm=True):
        super().__init__()
        self.spec = BackboneSpec(name="stand_in", timm_name="stand_in", architecture="stand_in")
        self.width, self.stride, self.resolution, self.num_heads = width, stride, resolution, num_heads
        self.ffn_kind, self.ffn_reason = ("tokens", "") if ffn else ("", "a plain convolution")
        self.query_width, self.has_final_norm = width, final_norm
        self.num_tokens = (resolution // stride) ** 2
        self.pruned: tuple[str, ...] = ()
        self.sites = Sites()
        self.rule = ModelRule(no_joint="needs a token sequence, and this has none")
        self.patches = nn.Conv2d(3, width, stride, stride)
        linears = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), linears[0], nn.GELU(), linears[1])
        self.norm = nn.LayerNorm(width) if final_norm else None

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)

    def query_ffn(self, queries: Tensor) -> Tensor:
        return queries + self.mlp(queries)

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        return self.norm(tokens)


def images(batch=2, side=64, seed=0) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))
