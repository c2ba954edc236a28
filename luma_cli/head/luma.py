"""The LUMA head: queries in a side stream read the tapped block's map once and predict masks (arXiv 2607.00687).

B batch, K queries, N = h w patch tokens, D channels of the tapped block, W channels of the head (D unless capped),
C classes. There is no attention between queries and no path from queries to patches: features stay as they were.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from luma_cli.head.attention import NORM_EPS, CrossAttention
from luma_cli.head.config import HeadConfig
from luma_cli.head.mask_module import MaskModule, Prediction
from luma_cli.head.plan import FRESH_FFN_RATIO, HeadPlan


class TappedBlock(Protocol):
    """The two things a head borrows from a backbone, by reference and without registering them."""

    def query_ffn(self, queries: Tensor) -> Tensor:
        """The tapped block's own residual FFN, [B, K, D] -> [B, K, D]."""

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        """The backbone's final norm, [B, N, D] -> [B, N, D]."""


class FreshFfn(nn.Module):
    """A residual FFN for backbones whose tapped block has none: norm, linear to 4 W, GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.grow = nn.Linear(width, FRESH_FFN_RATIO * width)
        self.shrink = nn.Linear(FRESH_FFN_RATIO * width, width)

    def forward(self, queries: Tensor) -> Tensor:
        """[B, K, W] -> [B, K, W]."""
        update: Tensor = self.shrink(nn.functional.gelu(self.grow(self.norm(queries))))
        return queries + update


class LumaHead(MaskModule):
    """Queries, their one cross-attention, and the class and mask predictions.

    Holds no parameter of the backbone: the reused FFN and the shared final norm come with every call, so that state
    dict, optimiser groups and checkpoints see them once, in the backbone.
    """

    def __init__(self, plan: HeadPlan, config: HeadConfig) -> None:
        super().__init__(plan.width, config.num_classes, plan.num_scale_blocks)
        width = plan.width
        self.plan = plan
        self.project = nn.Linear(plan.width_in, width) if plan.projects else nn.Identity()
        self.queries = nn.Embedding(config.num_queries, width)
        self.attention = CrossAttention(width, plan.num_heads)
        self.ffn = FreshFfn(width) if plan.ffn == "fresh" else None
        self.norm_queries = None if plan.shares_final_norm else nn.LayerNorm(width, eps=NORM_EPS)
        self.norm_pixels = None if plan.shares_final_norm else nn.LayerNorm(width, eps=NORM_EPS)

    def read(self, backbone: nn.Module, images: Tensor) -> Tensor:
        """What the head takes from the backbone: the tapped block's map [B, D, h, w] of images [B, 3, H, W]."""
        features: Tensor = backbone(images)
        return features

    def forward(self, features: Tensor, mask_size: tuple[int, int], block: TappedBlock) -> Prediction:
        """Features [B, D, h, w] of the tapped block and the side lengths of the masks -> a prediction."""
        tokens = self.project(features.flatten(2).transpose(1, 2))
        queries = self._feed(self.attention(self.queries.weight, tokens), block)
        queries, tokens = self._norm(queries, tokens, block)
        return self.predict(queries, tokens, (features.shape[2], features.shape[3]), mask_size)

    def _feed(self, queries: Tensor, block: TappedBlock) -> Tensor:
        """The feed-forward step of the queries, [B, K, W]: the backbone's own FFN, or the fresh one."""
        return block.query_ffn(queries) if self.ffn is None else self.ffn(queries)

    def _norm(self, queries: Tensor, tokens: Tensor, block: TappedBlock) -> tuple[Tensor, Tensor]:
        """Queries and tokens through the final norm that they share with the backbone, or through fresh ones."""
        if self.norm_queries is None or self.norm_pixels is None:
            return block.norm_tokens(queries), block.norm_tokens(tokens)
        return self.norm_queries(queries), self.norm_pixels(tokens)
