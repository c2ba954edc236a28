"""The head that a configuration asks for, on a given backbone."""

from __future__ import annotations

from torch import Tensor

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.joint import TokenSequence, joint_blocks
from luma_cli.head.config import HeadConfig
from luma_cli.head.eomt import EomtHead
from luma_cli.head.joint_plan import Sequence, plan_eomt
from luma_cli.head.linear import LinearHead, PixelLogits
from luma_cli.head.luma import LumaHead
from luma_cli.head.mask_module import Prediction
from luma_cli.head.plan import Tap, plan_head

Head = LumaHead | EomtHead | LinearHead
Taken = Tensor | TokenSequence
Output = Prediction | PixelLogits


def create_head(backbone: Backbone, config: HeadConfig) -> Head | None:
    """A head with fresh weights from torch's generator; None for `none`. Raises BuildError where it cannot be built."""
    if config.name == "luma":
        return LumaHead(plan_head(tap_of(backbone), config), config)
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
    )


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
