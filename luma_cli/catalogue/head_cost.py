"""Multiply-adds and parameters of every head in closed form, for any K, C and FFN choice. Imports no torch.

Every term is one layer of `head/luma.py`, `eomt.py` or `linear.py`, Mask2Former's are in `mask2former.py`; tests hold
the sums equal to the meta count and to the parameters that exist. K queries, N patch and P prefix tokens, D channels of
the tapped block, W channels of the head, C classes.
"""

from __future__ import annotations

import math
from functools import cache

from luma_cli.catalogue.costs import BackboneFacts, parse_blocks, parse_levels
from luma_cli.catalogue.heads import (
    FRESH_FFN_RATIO,
    MASK_STRIDE,
    EomtPlan,
    HeadConfig,
    HeadPlan,
    JointBlocks,
    Step,
    Tap,
    needs_blocks,
    plan_eomt,
    plan_head,
)
from luma_cli.catalogue.mask2former import (
    LevelOffer,
    Mask2FormerPlan,
    mask2former_macs,
    mask2former_params,
    plan_mask2former,
)
from luma_cli.errors import BuildError

_BILINEAR_MACS = 4  # weighted neighbours per resized value, as the counter has it
_DEPTHWISE_TAPS = 9
_DOUBLE_TAPS = 4


def head_macs(facts: BackboneFacts, head: HeadConfig) -> int:
    """Multiply-adds that the head adds to the backbone's own for one image; 0 for head `none`.

    LUMA's query pass through a reused FFN is among them, and what K more tokens cost EoMT's joint blocks.
    """
    if head.name == "none":
        return 0
    if head.name == "linear":
        return facts.num_tokens * facts.width * head.num_classes
    if head.name == "mask2former":
        return mask2former_macs(mask2former_plan_from_facts(facts, head), head, facts.resolution)
    return _eomt_macs(facts, head) if head.name == "eomt" else _luma_macs(facts, head)


def head_params(facts: BackboneFacts, head: HeadConfig) -> int:
    """Parameters of the head alone: those of a reused FFN and of a shared final norm belong to the backbone."""
    if head.name == "none":
        return 0
    if head.name == "linear":
        return 2 * facts.width + (facts.width + 1) * head.num_classes
    if head.name == "mask2former":
        return mask2former_params(mask2former_plan_from_facts(facts, head), head)
    return _eomt_params(facts, head) if head.name == "eomt" else _luma_params(facts, head)


_planned = cache(plan_head)  # a plan is asked for twice, and one at all sizes where only the map is read


def plan_from_facts(facts: BackboneFacts, head: HeadConfig) -> HeadPlan:
    """The plan that `build` follows for this backbone. Raises BuildError as `plan_head` does."""
    if not knows_blocks(facts) and needs_blocks(head):
        raise _unknown_blocks(facts)
    tap = Tap(
        width=facts.width,
        stride=facts.stride,
        num_heads=facts.num_heads,
        has_ffn=facts.ffn == "reused",
        has_final_norm=facts.final_norm,
        name=facts.architecture,
        blocks=parse_blocks(facts.blocks) if needs_blocks(head) else (),
        num_prefix_tokens=facts.num_prefix_tokens,
    )
    return _planned(tap, head)


def knows_blocks(facts: BackboneFacts) -> bool:
    """Whether the facts say which blocks queries can read, be it none."""
    return bool(facts.blocks)


def eomt_plan_from_facts(facts: BackboneFacts, head: HeadConfig) -> EomtPlan:
    """The EoMT plan that `build` follows for this backbone. Raises BuildError as `plan_eomt` does."""
    if not knows_joint_blocks(facts):
        raise _unknown_blocks(facts)
    depth = len(_joint_blocks(facts))
    offer = JointBlocks(facts.width, facts.stride, depth, facts.final_norm, facts.architecture, facts.no_joint)
    return plan_eomt(offer, head)


def knows_joint_blocks(facts: BackboneFacts) -> bool:
    """Whether the facts say which blocks queries can join, or why none."""
    return bool(facts.joint_blocks or facts.no_joint)


def mask2former_plan_from_facts(facts: BackboneFacts, head: HeadConfig) -> Mask2FormerPlan:
    """The Mask2Former plan that `build` follows for this backbone. Raises BuildError as `plan_mask2former` does."""
    if not knows_levels(facts):
        raise _unknown_blocks(facts)
    offer = LevelOffer(
        levels=parse_levels(facts.levels),
        side=math.isqrt(facts.num_tokens),
        resolution=facts.resolution,
        name=facts.architecture,
        depth=len(_joint_blocks(facts)),
        no_blocks=facts.no_joint,
        num_heads=facts.num_heads,
    )
    return plan_mask2former(offer, head)


def knows_levels(facts: BackboneFacts) -> bool:
    """Whether the facts say which maps the backbone gives."""
    return bool(facts.levels)


def _unknown_blocks(facts: BackboneFacts) -> BuildError:
    return BuildError(
        f"the facts of {facts.architecture} do not say its blocks and maps; count it with segmenter_cost(build(...))"
    )


def _luma_macs(facts: BackboneFacts, head: HeadConfig) -> int:
    plan = plan_from_facts(facts, head)
    width, queries = plan.width, head.num_queries
    return (
        (facts.num_tokens * plan.width_in * width if plan.projects else 0)
        + sum(_step_macs(step, after, facts, queries) for step, after in zip(plan.steps, plan.widths[1:], strict=True))
        + _attention_macs(width, plan.tokens_width or width, queries, plan.num_tokens or facts.num_tokens)
        + queries * _ffn_macs(plan.ffn, width, facts.query_ffn_macs)
        + _mask_module_macs(width, plan.num_scale_blocks, facts, head, plan.mask_stride)
    )


def _luma_params(facts: BackboneFacts, head: HeadConfig) -> int:
    plan = plan_from_facts(facts, head)
    width = plan.width
    project = (plan.width_in + 1) * width if plan.projects else 0
    steps = sum(_step_params(step, after, head) for step, after in zip(plan.steps, plan.widths[1:], strict=True))
    last = _attention_params(width, plan.tokens_width or width, head, plan.shares_read_norm)
    last += _ffn_params(plan.ffn, width)
    norms = 0 if plan.shares_final_norm else (2 if head.query_norm else 1) * _norm_params(width)
    queries = head.num_queries * plan.widths[0]
    return project + queries + steps + last + norms + _mask_module_params(width, plan.num_scale_blocks, head)


def _eomt_macs(facts: BackboneFacts, head: HeadConfig) -> int:
    """The mask module, and what K more tokens cost the joint blocks; masked, the mask module before each block too."""
    plan = eomt_plan_from_facts(facts, head)
    before = facts.num_prefix_tokens + facts.num_tokens
    pairs = (before + head.num_queries) ** 2 - before**2
    blocks = _joint_blocks(facts)[: plan.num_joint]
    joint = sum(per_token * head.num_queries + per_pair * pairs for per_token, per_pair in blocks)
    predicted = _mask_module_macs(plan.width, plan.num_scale_blocks, facts, head)
    if not plan.masked:
        return joint + predicted
    resized = _BILINEAR_MACS * head.num_queries * facts.num_tokens
    return joint + predicted + plan.num_joint * (predicted + resized)


def _eomt_params(facts: BackboneFacts, head: HeadConfig) -> int:
    plan = eomt_plan_from_facts(facts, head)
    norm = 0 if plan.shares_final_norm else _norm_params(plan.width)
    return head.num_queries * plan.width + norm + _mask_module_params(plan.width, plan.num_scale_blocks, head)


def _joint_blocks(facts: BackboneFacts) -> list[tuple[int, int]]:
    """Multiply-adds per token and per pair of tokens of every block, last first."""
    blocks = []
    for run in facts.joint_blocks.split():
        costs, count = run.split("*")
        per_token, per_pair = costs.split("x")
        blocks += [(int(per_token), int(per_pair))] * int(count)
    return blocks


def _step_macs(step: Step, next_width: int, facts: BackboneFacts, num_queries: int) -> int:
    """One block before the last: reading it, its FFN, and the projection to the next block's width where it differs."""
    read = _attention_macs(step.width, step.tokens_width, num_queries, step.num_tokens)
    own_ffn = parse_blocks(facts.blocks)[step.back].ffn_macs
    widen = step.width * next_width if step.width != next_width else 0
    return read + num_queries * (_ffn_macs(step.ffn, step.width, own_ffn) + widen)


def _step_params(step: Step, next_width: int, head: HeadConfig) -> int:
    widen = (step.width + 1) * next_width if step.width != next_width else 0
    return _attention_params(step.width, step.tokens_width, head) + _ffn_params(step.ffn, step.width) + widen


def _attention_macs(width: int, tokens_width: int, num_queries: int, num_tokens: int) -> int:
    """Query and output projections, key and value projections, scores and their use."""
    return 2 * num_queries * width**2 + 2 * num_tokens * tokens_width * width + 2 * num_queries * num_tokens * width


def _attention_params(width: int, tokens_width: int, head: HeadConfig, shares_norm: bool = False) -> int:
    projections = 2 * width**2 + 2 * tokens_width * width + width + (3 * width if head.qkv_bias else 0)
    norms = 0 if shares_norm else _norm_params(width) + _norm_params(tokens_width)
    return norms + projections + (width if head.layer_scale else 0)


def _ffn_macs(ffn: str, width: int, own: int) -> int:
    """Of one query through the block's own FFN, or through a fresh one."""
    return own if ffn == "reused" else 2 * FRESH_FFN_RATIO * width**2


def _ffn_params(ffn: str, width: int) -> int:
    """Of a fresh FFN; those of a reused one are the backbone's."""
    hidden = FRESH_FFN_RATIO * width
    return _norm_params(width) + 2 * hidden * width + hidden + width if ffn == "fresh" else 0


def _mask_module_macs(
    width: int, num_scale_blocks: int, facts: BackboneFacts, head: HeadConfig, mask_stride: float = MASK_STRIDE
) -> int:
    """Class scores and mask embeddings, doublings of the map, masks as products with it, bilinear finish if need be."""
    num_tokens, queries = facts.num_tokens, head.num_queries
    finer: int = 4**num_scale_blocks  # pixels of the upscaled map per token
    predict = queries * (width * (head.num_classes + 1) + 3 * width**2)
    per_token = _DOUBLE_TAPS * width**2 + 4 * _DEPTHWISE_TAPS * width  # the depthwise step sees four times as many
    upscaled = per_token * num_tokens * (finer - 1) // 3
    masks = queries * width * num_tokens * finer
    mask_side = int(facts.resolution / mask_stride)
    meets = math.isqrt(num_tokens) * 2**num_scale_blocks == mask_side
    return predict + upscaled + masks + (0 if meets else _BILINEAR_MACS * queries * mask_side**2)


def _mask_module_params(width: int, num_scale_blocks: int, head: HeadConfig) -> int:
    classify = (width + 1) * (head.num_classes + 1)
    scale_block = _DOUBLE_TAPS * width**2 + width + _DEPTHWISE_TAPS * width + _norm_params(width)
    return classify + 3 * (width**2 + width) + num_scale_blocks * scale_block


def _norm_params(width: int) -> int:
    return 2 * width
