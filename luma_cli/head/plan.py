"""What a head for one backbone will be made of, decided from plain numbers. Imports no torch.

The torch module (`luma.py`) and the closed forms of its cost (`formula.py`) both follow this one plan.
Source: arXiv 2607.00687 leaves width, heads and stride handling open; the choices are argued field by field below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from luma_cli.catalogue.block_runs import Block
from luma_cli.errors import BuildError
from luma_cli.head.config import HeadConfig

MASK_STRIDE = 4  # mask logits are predicted at a quarter of the image's side
FRESH_FFN_RATIO = 4  # hidden width of a fresh FFN, as in the transformers that the reused ones come from
CHANNELS_PER_HEAD = 64


@dataclass(frozen=True, slots=True)
class Tap:
    """What the tapped block offers: channels, pixels per token, attention heads, an own FFN, a final norm.

    num_heads is 0 when the block has no attention of its own; `ffn_reason` says why `has_ffn` is false.
    blocks: those of the tapped kind that can be read, last first; blocks_reason: why there are no more.
    """

    width: int
    stride: int
    num_heads: int
    has_ffn: bool
    has_final_norm: bool
    name: str = "this backbone"
    ffn_reason: str = ""
    blocks: tuple[Block, ...] = ()
    blocks_reason: str = ""
    num_prefix_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One block that queries meet before the last: it is `back` blocks before it.

    width: channels of the queries there; tokens_width, num_tokens: of what they read, prefix tokens among them.
    """

    back: int
    width: int
    tokens_width: int
    num_tokens: int
    num_heads: int
    ffn: Literal["reused", "fresh"]


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """The decided shape of a head: widths in channels, heads of its attention, what it shares with the backbone.

    tokens_width, num_tokens: of the last block's own tensor where queries read that; 0 where they read the map.
    steps: the blocks that they meet before, first to last.
    """

    width_in: int
    width: int
    num_heads: int
    num_scale_blocks: int
    ffn: Literal["reused", "fresh"]
    shares_final_norm: bool
    tokens_width: int = 0
    num_tokens: int = 0
    steps: tuple[Step, ...] = ()

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the queries at every block that they meet, first to last."""
        return (*(step.width for step in self.steps), self.width)

    @property
    def projects(self) -> bool:
        """Whether features are first projected to a narrower width."""
        return self.width != self.width_in


def plan_head(tap: Tap, config: HeadConfig) -> HeadPlan:
    """The head that `config` asks for on `tap`.

    Raises BuildError when it asks to reuse an FFN that is not there, or to read what no block has.
    """
    _check_reading(tap, config)
    if config.ffn == "reused" and not tap.has_ffn:
        reason = f" ({tap.ffn_reason})" if tap.ffn_reason else ""
        raise BuildError(f"{tap.name} has no token-wise FFN to reuse{reason}; use ffn='fresh' or 'auto'")
    reused = tap.has_ffn and config.ffn != "fresh"
    width = tap.width if reused else min(tap.width, config.width_cap)
    same = width == tap.width
    heads = _heads(width, tap.num_heads if same else 0)
    own = reads_block(config)
    tokens_width, num_tokens = _read(tap, tap.blocks[0], config) if own else (0, 0)
    return HeadPlan(
        width_in=tap.width,
        width=width,
        num_heads=heads,
        num_scale_blocks=num_scale_blocks(tap.stride),
        ffn="reused" if reused else "fresh",
        shares_final_norm=tap.has_final_norm and same,
        tokens_width=tokens_width,
        num_tokens=num_tokens,
        steps=tuple(_step(tap, back, config) for back in range(config.l2 - 1, 0, -1)),
    )


def reads_block(config: HeadConfig) -> bool:
    """Whether the last block's own tensor is read, not the map: for its input, or for its prefix tokens."""
    return config.tap == "input" or config.prefix


def needs_blocks(config: HeadConfig) -> bool:
    """Whether a LUMA head reads anything besides the map."""
    return reads_block(config) or config.l2 > 1


def _check_reading(tap: Tap, config: HeadConfig) -> None:
    depth = len(tap.blocks)
    reason = f" ({tap.blocks_reason})" if tap.blocks_reason else ""
    if needs_blocks(config) and not depth:
        raise BuildError(
            f"{tap.name} has no block that queries can read besides the map{reason}; leave out --l2, --tap and --prefix"
        )
    if config.l2 > max(depth, 1):
        raise BuildError(f"{tap.name}: l2 is {config.l2}, its depth is {depth} blocks{reason}; try --l2 {depth}")
    if config.prefix and not tap.num_prefix_tokens:
        raise BuildError(f"{tap.name} has no class or register tokens that queries could see; leave out --prefix")
    if config.tap == "input" and not all(block.num_tokens_in for block in tap.blocks[: config.l2]):
        raise BuildError(f"{tap.name}: the input of a tapped block is no grid of tokens; use --tap output")


def _step(tap: Tap, back: int, config: HeadConfig) -> Step:
    block = tap.blocks[back]
    if config.ffn == "reused" and not block.lends_ffn:
        raise BuildError(f"{tap.name} has no token-wise FFN to reuse {back} blocks before the last; use --ffn auto")
    reused = block.lends_ffn and config.ffn != "fresh"
    width = block.width if reused else min(block.width, config.width_cap)
    tokens_width, num_tokens = _read(tap, block, config)
    heads = _heads(width, block.num_heads if width == block.width else 0)
    return Step(back, width, tokens_width, num_tokens, heads, "reused" if reused else "fresh")


def _read(tap: Tap, block: Block, config: HeadConfig) -> tuple[int, int]:
    """Channels and number of the tokens that queries read of a block."""
    prefix = tap.num_prefix_tokens if config.prefix else 0
    if config.tap == "input":
        return block.width_in, block.num_tokens_in + prefix
    return block.width, block.num_tokens + prefix


def _heads(width: int, own: int) -> int:
    return own if own and width % own == 0 else default_heads(width)


def default_heads(width: int) -> int:
    """Heads for a block without attention: the most of at least 64 channels each that divide `width`.

    >>> default_heads(768), default_heads(200), default_heads(32)
    (12, 2, 1)
    """
    most = max(1, width // CHANNELS_PER_HEAD)
    return next(heads for heads in range(most, 0, -1) if width % heads == 0)


def num_scale_blocks(stride: int) -> int:
    """Doublings that bring a map of `stride` nearest to a quarter of the image; a bilinear resize does the rest.

    >>> [num_scale_blocks(stride) for stride in (2, 4, 8, 14, 16, 32, 64)]
    [0, 0, 1, 2, 2, 3, 4]
    """
    return max(0, round(math.log2(stride / MASK_STRIDE)))
