"""What a head for one backbone will be made of, decided from plain numbers. Imports no torch.

The torch module (`luma.py`) and the closed forms of its cost (`formula.py`) both follow this one plan.
Source: arXiv 2607.00687 leaves width, heads and stride handling open; the choices are argued field by field below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from luma_cli.errors import BuildError
from luma_cli.head.config import HeadConfig

MASK_STRIDE = 4  # mask logits are predicted at a quarter of the image's side
FRESH_FFN_RATIO = 4  # hidden width of a fresh FFN, as in the transformers that the reused ones come from
CHANNELS_PER_HEAD = 64


@dataclass(frozen=True, slots=True)
class Tap:
    """What the tapped block offers: channels, pixels per token, attention heads, an own FFN, a final norm.

    num_heads is 0 when the block has no attention of its own; `ffn_reason` says why `has_ffn` is false.
    """

    width: int
    stride: int
    num_heads: int
    has_ffn: bool
    has_final_norm: bool
    name: str = "this backbone"
    ffn_reason: str = ""


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """The decided shape of a head: widths in channels, heads of its attention, what it shares with the backbone."""

    width_in: int
    width: int
    num_heads: int
    num_scale_blocks: int
    ffn: Literal["reused", "fresh"]
    shares_final_norm: bool

    @property
    def projects(self) -> bool:
        """Whether features are first projected to a narrower width."""
        return self.width != self.width_in


def plan_head(tap: Tap, config: HeadConfig) -> HeadPlan:
    """The head that `config` asks for on `tap`. Raises BuildError when it asks to reuse an FFN that is not there."""
    if config.ffn == "reused" and not tap.has_ffn:
        reason = f" ({tap.ffn_reason})" if tap.ffn_reason else ""
        raise BuildError(f"{tap.name} has no token-wise FFN to reuse{reason}; use ffn='fresh' or 'auto'")
    reused = tap.has_ffn and config.ffn != "fresh"
    width = tap.width if reused else min(tap.width, config.width_cap)
    same = width == tap.width
    heads = tap.num_heads if same and tap.num_heads and width % tap.num_heads == 0 else default_heads(width)
    return HeadPlan(
        width_in=tap.width,
        width=width,
        num_heads=heads,
        num_scale_blocks=num_scale_blocks(tap.stride),
        ffn="reused" if reused else "fresh",
        shares_final_norm=tap.has_final_norm and same,
    )


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
