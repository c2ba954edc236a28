"""The LUMA head: queries in a side stream read the tapped block's map once and predict masks (arXiv 2607.00687).

B batch, K queries, N = h w patch tokens, D channels of the tapped block, W channels of the head (D unless capped),
C classes. There is no attention between queries and no path from queries to patches: features stay as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.taps import Watch, read
from luma_cli.catalogue.heads import FRESH_FFN_RATIO, HeadConfig, HeadPlan, Step
from luma_cli.head.parts import NORM_EPS, CrossAttention, HeadOutput, MaskModule


class Tapped(NamedTuple):
    """What a head takes that reads blocks: features [B, D, h, w], and tokens [B, N, D_i] of each, first block first."""

    features: Tensor
    tokens: tuple[Tensor, ...]


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


class BlockStep(nn.Module):
    """Queries meet one block before the last: they read it, pass its FFN, and take the next block's width."""

    def __init__(self, step: Step, next_width: int, config: HeadConfig) -> None:
        super().__init__()
        self.back = step.back
        self.attention = CrossAttention(step.width, step.num_heads, step.tokens_width, config)
        self.ffn = FreshFfn(step.width) if step.ffn == "fresh" else None
        self.widen = nn.Linear(step.width, next_width) if step.width != next_width else nn.Identity()

    def forward(self, queries: Tensor, tokens: Tensor, backbone: Backbone) -> Tensor:
        """Queries [K, W] or [B, K, W] and the block's tokens [B, N, D_i] -> [B, K, next W]."""
        queries = self.attention(queries, tokens)
        queries = backbone.earlier_query_ffn(queries, self.back) if self.ffn is None else self.ffn(queries)
        widened: Tensor = self.widen(queries)
        return widened


class LumaHead(MaskModule):
    """Queries, their one cross-attention per tapped block, and the class and mask predictions.

    By default one block is tapped and its map read. `watches` keep the tensors of the blocks that are read besides, in
    the order in which they run: those of the plan's steps, then the last block's own where the plan reads that.

    Holds no parameter of the backbone: the reused FFN and the shared final norm come with every call, so that state
    dict, optimiser groups and checkpoints see them once, in the backbone.
    """

    def __init__(self, plan: HeadPlan, config: HeadConfig, watches: Sequence[Watch] = ()) -> None:
        super().__init__(plan.width, config.num_classes, plan.num_scale_blocks)
        width = plan.width
        self.plan = plan
        self.query_norm = config.query_norm
        self.project = nn.Linear(plan.width_in, width) if plan.projects else nn.Identity()
        self.queries = nn.Embedding(config.num_queries, plan.widths[0])
        self.attention = CrossAttention(
            width, plan.num_heads, plan.tokens_width, config, shares_norm=plan.shares_read_norm
        )
        self.ffn = FreshFfn(width) if plan.ffn == "fresh" else None
        own_norm = config.query_norm and not plan.shares_final_norm
        self.norm_queries = nn.LayerNorm(width, eps=NORM_EPS) if own_norm else None
        self.norm_pixels = None if plan.shares_final_norm else nn.LayerNorm(width, eps=NORM_EPS)
        self.earlier = nn.ModuleList(
            BlockStep(step, after, config) for step, after in zip(plan.steps, plan.widths[1:], strict=True)
        )
        self._watches = tuple(watches)

    def read(self, backbone: Backbone, images: Tensor) -> Tensor | Tapped:
        """What the head takes of images [B, 3, H, W]: the map [B, D, h, w], and the tokens of blocks that it reads."""
        if self._watches:
            return Tapped(*read(backbone, images, self._watches))
        features: Tensor = backbone(images)
        return features

    def forward(self, taken: Tensor | Tapped, mask_size: tuple[int, int], backbone: Backbone) -> HeadOutput:
        """What `read` gave, and the side lengths of the masks -> a prediction."""
        features, blocks = taken if isinstance(taken, Tapped) else Tapped(taken, ())
        tokens = self.project(features.flatten(2).transpose(1, 2))
        queries = self.queries.weight
        for number, step in enumerate(self.earlier):
            queries = step(queries, blocks[number], backbone)
        queries = self.attention(queries, blocks[-1] if self.plan.tokens_width else tokens, backbone.norm_tokens)
        queries = backbone.query_ffn(queries) if self.ffn is None else self.ffn(queries)
        if self.query_norm:
            queries = backbone.norm_tokens(queries) if self.norm_queries is None else self.norm_queries(queries)
        tokens = backbone.norm_tokens(tokens) if self.norm_pixels is None else self.norm_pixels(tokens)
        return self.predict(queries, tokens, (features.shape[2], features.shape[3]), mask_size)
