"""The blocks of the tapped kind in one text, as the cost table keeps them: `width x tokens x FFN macs * blocks`.

Last block first; equal neighbours form a run. `1024x256x8388608*1 512x1024x2097152*18` is a last stage of one block
after one of eighteen. A block whose input has another shape says it behind `<`, as in `64x256x0<32x1024*1`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import groupby

NONE = "none"  # no block can be read, as opposed to no text: nobody has looked


@dataclass(frozen=True, slots=True)
class Block:
    """What a head reads of one block, prefix tokens left out.

    width, num_tokens: channels and patch tokens of its output; width_in, num_tokens_in: of its input, 0 where that
    cannot be read. lends_ffn: whether queries can use its own FFN; ffn_macs: multiply-adds per query of that, 0 where
    nobody counted. num_heads: of its own attention, 0 without or where nobody said.
    """

    width: int
    num_tokens: int
    width_in: int
    num_tokens_in: int
    ffn_macs: int = 0
    lends_ffn: bool = False
    num_heads: int = 0


def format_blocks(blocks: Iterable[Block]) -> str:
    """The text of blocks, last first; `none` of no block."""
    return " ".join(f"{shape}*{len(list(same))}" for shape, same in groupby(map(_shape, blocks))) or NONE


@cache
def parse_blocks(text: str) -> tuple[Block, ...]:
    """The blocks of that text, last first. Raises ValueError for another.

    >>> [block.width for block in parse_blocks("1024x256x8388608*1 512x1024x2097152*2")]
    [1024, 512, 512]
    """
    runs = [] if text == NONE else text.split()
    return tuple(block for run in runs for block in _run(run))


def _shape(block: Block) -> str:
    own = f"{block.width}x{block.num_tokens}"
    taken = f"{block.width_in}x{block.num_tokens_in}"
    return f"{own}x{block.ffn_macs}" + ("" if taken == own else f"<{taken}")


def _run(text: str) -> list[Block]:
    shape, _, count = text.partition("*")
    own, _, taken = shape.partition("<")
    width, num_tokens, ffn_macs = map(int, own.split("x"))
    width_in, num_tokens_in = map(int, taken.split("x")) if taken else (width, num_tokens)
    return [Block(width, num_tokens, width_in, num_tokens_in, ffn_macs, ffn_macs > 0)] * int(count)
