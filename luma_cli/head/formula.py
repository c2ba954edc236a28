"""Multiply-adds and parameters of the LUMA head in closed form, for any K, C and FFN choice. Imports no torch.

Every term is one layer of `luma.py`; tests hold the sums equal to the meta count and to the parameters that exist.
K queries, N patch tokens, D channels of the tapped block, W channels of the head, C classes.
"""

from __future__ import annotations

import math
from typing import Protocol

from luma_cli.head.config import HeadConfig
from luma_cli.head.plan import FRESH_FFN_RATIO, MASK_STRIDE, HeadPlan, Tap, plan_head

_BILINEAR_MACS = 4  # weighted neighbours per resized value, as the counter has it
_DEPTHWISE_TAPS = 9
_DOUBLE_TAPS = 4


class Facts(Protocol):
    """What the closed form reads of a backbone at one resolution (`catalogue.costs.BackboneFacts`)."""

    @property
    def architecture(self) -> str:
        """Name, for error messages."""

    @property
    def resolution(self) -> int:
        """Side of the image in pixels."""

    @property
    def width(self) -> int:
        """Channels of the tapped block."""

    @property
    def stride(self) -> int:
        """Pixels per token along one side."""

    @property
    def num_tokens(self) -> int:
        """Patch tokens of the tapped block's (square) map."""

    @property
    def num_heads(self) -> int:
        """Heads of the tapped block's own attention, 0 without."""

    @property
    def ffn(self) -> str:
        """`reused` when the tapped block has a token-wise FFN, `fresh` otherwise."""

    @property
    def query_ffn_macs(self) -> int:
        """Multiply-adds of that FFN for one query."""

    @property
    def final_norm(self) -> bool:
        """Whether the backbone applies a final norm to its patch map."""


def plan_from_facts(facts: Facts, head: HeadConfig) -> HeadPlan:
    """The plan that `build` follows for this backbone. Raises BuildError as `plan_head` does."""
    tap = Tap(
        width=facts.width,
        stride=facts.stride,
        num_heads=facts.num_heads,
        has_ffn=facts.ffn == "reused",
        has_final_norm=facts.final_norm,
        name=facts.architecture,
    )
    return plan_head(tap, head)


def head_macs(facts: Facts, head: HeadConfig) -> int:
    """Multiply-adds of the head for one image, the query pass through a reused FFN included; 0 for head `none`."""
    if head.name == "none":
        return 0
    plan = plan_from_facts(facts, head)
    ffn = facts.query_ffn_macs if plan.ffn == "reused" else 2 * FRESH_FFN_RATIO * plan.width**2
    return (
        _project_macs(plan, facts.num_tokens)
        + _attention_macs(plan.width, head.num_queries, facts.num_tokens)
        + head.num_queries * (ffn + _predict_macs(plan.width, head.num_classes))
        + _mask_macs(plan, head.num_queries, facts.num_tokens, facts.resolution)
    )


def head_params(facts: Facts, head: HeadConfig) -> int:
    """Parameters of the head alone: those of a reused FFN and of a shared final norm belong to the backbone."""
    if head.name == "none":
        return 0
    plan = plan_from_facts(facts, head)
    width = plan.width
    norm = 2 * width
    linear = width**2 + width
    hidden = FRESH_FFN_RATIO * width
    project = (plan.width_in + 1) * width if plan.projects else 0
    attention = 2 * norm + 4 * linear
    ffn = norm + 2 * hidden * width + hidden + width if plan.ffn == "fresh" else 0
    norms = 0 if plan.shares_final_norm else 2 * norm
    classify = (width + 1) * (head.num_classes + 1)
    scale_block = _DOUBLE_TAPS * width**2 + width + _DEPTHWISE_TAPS * width + norm
    upscale = plan.num_scale_blocks * scale_block
    return project + head.num_queries * width + attention + ffn + norms + classify + 3 * linear + upscale


def _project_macs(plan: HeadPlan, num_tokens: int) -> int:
    return num_tokens * plan.width_in * plan.width if plan.projects else 0


def _attention_macs(width: int, num_queries: int, num_tokens: int) -> int:
    """Query and output projections, key and value projections, scores and their use."""
    return 2 * num_queries * width**2 + 2 * num_tokens * width**2 + 2 * num_queries * num_tokens * width


def _predict_macs(width: int, num_classes: int) -> int:
    """Class scores and the three layers of the mask embedding, for one query."""
    return width * (num_classes + 1) + 3 * width**2


def _mask_macs(plan: HeadPlan, num_queries: int, num_tokens: int, resolution: int) -> int:
    """Doublings of the map, masks as products with it, and the bilinear finish where sizes differ."""
    width, blocks = plan.width, plan.num_scale_blocks
    finer: int = 4**blocks  # pixels of the upscaled map per token
    per_token = _DOUBLE_TAPS * width**2 + 4 * _DEPTHWISE_TAPS * width  # the depthwise step sees four times as many
    upscaled = per_token * num_tokens * (finer - 1) // 3
    masks = num_queries * width * num_tokens * finer
    mask_side = resolution // MASK_STRIDE
    meets = math.isqrt(num_tokens) * 2**blocks == mask_side
    return upscaled + masks + (0 if meets else _BILINEAR_MACS * num_queries * mask_side**2)
