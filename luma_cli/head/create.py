"""The head that a configuration asks for, on a given backbone."""

from __future__ import annotations

from torch import Tensor

from luma_cli.backbone.backbone import Backbone, TokenSequence, joint_blocks
from luma_cli.backbone.query_ffn import QueryFfn
from luma_cli.backbone.taps import Watch, own_heads
from luma_cli.catalogue.block_runs import Block
from luma_cli.catalogue.heads import HeadConfig, HeadPlan, Sequence, Tap, plan_eomt, plan_head
from luma_cli.head.eomt import EomtHead
from luma_cli.head.linear import LinearHead, PixelLogits
from luma_cli.head.luma import LumaHead, Tapped
from luma_cli.head.mask_module import Prediction

Head = LumaHead | EomtHead | LinearHead
Taken = Tensor | Tapped | TokenSequence
Output = Prediction | PixelLogits


def create_head(backbone: Backbone, config: HeadConfig) -> Head | None:
    """A head with fresh weights from torch's generator; None for `none`. Raises BuildError where it cannot be built."""
    if config.name == "luma":
        plan = plan_head(tap_of(backbone), config)
        return LumaHead(plan, config, watches(backbone, plan, config))
    if config.name == "eomt":
        return EomtHead(plan_eomt(sequence_of(backbone), config), config)
    return LinearHead(backbone.width, config) if config.name == "linear" else None


def tap_of(backbone: Backbone) -> Tap:
    """What `backbone` offers to LUMA, as plain numbers. An FFN that takes another width than the map's is none."""
    fits = backbone.query_width == backbone.width
    narrow = "" if fits else f"its FFN takes {backbone.query_width} channels, the map has {backbone.width}"
    return Tap(
        width=backbone.width,
        stride=backbone.stride,
        num_heads=backbone.num_heads,
        has_ffn=bool(backbone.ffn_kind) and fits,
        has_final_norm=backbone.has_final_norm,
        name=backbone.spec.name,
        ffn_reason=backbone.ffn_reason or narrow,
        blocks=tuple(block_of(backbone, back) for back in range(len(backbone.sites.found))),
        blocks_reason=backbone.sites.reason,
        num_prefix_tokens=backbone.sites.num_prefix_tokens,
    )


def block_of(backbone: Backbone, back: int) -> Block:
    """What the block that runs `back` blocks before the tapped one offers. An FFN that changes the width is none."""
    site = backbone.sites.found[-1 - back]
    ffn = backbone.earlier_ffn(back) if back else None
    lends = isinstance(ffn, QueryFfn) and ffn.width == site.width
    heads = own_heads(ffn, backbone.rule) if isinstance(ffn, QueryFfn) else 0
    return Block(site.width, site.num_tokens, site.width_in, site.num_tokens_in, lends_ffn=lends, num_heads=heads)


def watches(backbone: Backbone, plan: HeadPlan, config: HeadConfig) -> list[Watch]:
    """Hooks on the blocks whose own tensors the head reads, in the order in which they run; none for the map alone."""
    skipped = 0 if config.prefix else backbone.sites.num_prefix_tokens
    last = [0] if plan.tokens_width else []
    return [
        Watch(backbone.block(back), backbone.sites.found[-1 - back], input=config.tap == "input", num_skipped=skipped)
        for back in (*(step.back for step in plan.steps), *last)
    ]


def sequence_of(backbone: Backbone) -> Sequence:
    """What `backbone` offers to queries that join its token sequence, as plain numbers."""
    return Sequence(
        width=backbone.width,
        stride=backbone.stride,
        depth=len(joint_blocks(backbone)),
        has_final_norm=backbone.has_final_norm,
        name=backbone.spec.name,
        refusal=backbone.rule.joint_refusal,
    )
