"""What an EoMT head on one backbone will be made of, from plain numbers (arXiv 2503.19108). Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from luma_cli.errors import BuildError
from luma_cli.head.config import HeadConfig
from luma_cli.head.plan import MASK_STRIDE


@dataclass(frozen=True, slots=True)
class Sequence:
    """What a backbone offers to queries that join it: channels, pixels per patch, blocks, a final norm.

    refusal: why queries cannot join, as the end of a sentence about EoMT; empty when they can.
    """

    width: int
    stride: int
    depth: int
    has_final_norm: bool
    name: str = "this backbone"
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class EomtPlan:
    """The decided shape: channels, blocks that queries join, doublings of the map, whose final norm."""

    width: int
    num_joint: int
    num_scale_blocks: int
    shares_final_norm: bool


def plan_eomt(sequence: Sequence, config: HeadConfig) -> EomtPlan:
    """The EoMT head that `config` asks for. Raises BuildError where queries cannot join so many last blocks."""
    if sequence.refusal:
        raise BuildError(f"{sequence.name}: EoMT {sequence.refusal}; use --head luma")
    if config.l2 > sequence.depth:
        raise BuildError(f"{sequence.name} has {sequence.depth} blocks, got l2 {config.l2}; give at most the depth")
    return EomtPlan(
        width=sequence.width,
        num_joint=config.l2 or default_joint_blocks(sequence.depth),
        num_scale_blocks=num_eomt_scale_blocks(sequence.stride),
        shares_final_norm=sequence.has_final_norm,
    )


def default_joint_blocks(depth: int) -> int:
    """EoMT's L2 by depth: 3 up to 12 blocks (S, B), 4 up to 24 (L), 5 beyond (g; section 4.1); never more than exist.

    >>> [default_joint_blocks(depth) for depth in (2, 12, 24, 40)]
    [2, 3, 4, 5]
    """
    return min(depth, 3 if depth <= 12 else 4 if depth <= 24 else 5)


def num_eomt_scale_blocks(stride: int) -> int:
    """Doublings of the patch map: log2 of the patch side, rounded down, less 2, and at least 1.

    >>> [num_eomt_scale_blocks(stride) for stride in (8, 14, 16, 32)]
    [1, 1, 2, 3]
    """
    return max(1, int(math.log2(stride)) - int(math.log2(MASK_STRIDE)))
