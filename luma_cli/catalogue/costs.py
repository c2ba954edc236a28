"""The shipped cost table, `profiles/costs.csv`: per architecture and resolution, what the head's closed form needs.

So the cost of a whole segmenter is known without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

from luma_cli import files
from luma_cli.errors import BadCard


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """One backbone at one size, counted on the meta device with batch 1.

    resolution: side of the square input in pixels. macs: multiply-adds of the backbone alone. params, activations:
    counts. width, stride, num_tokens: channels, pixels and cells of the tapped feature map. query_ffn_macs:
    multiply-adds per query through the reused FFN, 0 when it is fresh. num_heads: of the head's cross-attention.
    final_norm: whether the head reuses the backbone's. complete: whether every op was counted; unknown_ops: the others,
    separated by spaces. timm: version counted with. active_params: parameters that one token meets, fewer than `params`
    in a mixture of experts; 0 in a table from before they were counted. num_prefix_tokens: class and register tokens of
    the tapped block. blocks: the tapped block and those of its kind before it, last first (see `format_blocks`), empty
    where nobody has looked. no_joint: why EoMT's queries cannot join the last blocks, empty when they can.
    joint_blocks: those that they can join, last first, as runs `multiply-adds per token x per pair of tokens * blocks`,
    e.g. `7077888x1536*12`. levels: the maps that it gives by itself, finest first (see `format_levels`), the tapped one
    last; empty where nobody has looked.
    """

    architecture: str
    resolution: int
    macs: int
    params: int
    activations: int
    width: int
    stride: int
    num_tokens: int
    ffn: Literal["reused", "fresh"]
    query_ffn_macs: int
    num_heads: int
    final_norm: bool
    complete: bool
    unknown_ops: str
    timm: str
    active_params: int = 0
    num_prefix_tokens: int = 0
    blocks: str = ""
    no_joint: str = ""
    joint_blocks: str = ""
    levels: str = ""

    @property
    def met_params(self) -> int:
        """`active_params`, or all of `params` where they were not counted."""
        return self.active_params or self.params


def costs_path() -> Path:
    """The cost table that ships with luma."""
    return files.root() / "profiles" / "costs.csv"


@cache
def load_costs() -> Mapping[tuple[str, int], BackboneFacts]:
    """Facts by (architecture, resolution in pixels); empty where no table ships."""
    return read_costs(costs_path()) if costs_path().is_file() else {}


def read_costs(path: Path) -> dict[tuple[str, int], BackboneFacts]:
    """The table in the file at `path`. Raises BadCard, naming the row, when it is not a cost table."""
    table = {}
    for number, row in enumerate(files.read_csv(path), 1):
        try:
            facts = BackboneFacts(**{name: _READERS.get(name, str.strip)(text) for name, text in row.items()})
        except (TypeError, ValueError) as error:
            raise BadCard(f"{path}: row {number} is no row of a cost table ({error})") from error
        table[facts.architecture, facts.resolution] = facts
    return table


def _spelled(meanings: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in meanings:
            raise ValueError(f"{text!r} is none of {', '.join(meanings)}")
        return meanings[text]

    return read


# Types are texts here, by the __future__ import. Other columns are texts.
_flag = _spelled({"true": True, "1": True, "false": False, "0": False})
_BY_TYPE: Mapping[str, Callable[[str], Any]] = {"int": int, "bool": lambda text: _flag(text.lower())}
_READERS = {field.name: _BY_TYPE.get(str(field.type), str.strip) for field in fields(BackboneFacts)}
_READERS["ffn"] = _spelled({"reused": "reused", "fresh": "fresh"})

NONE = "none"  # no block can be read, as opposed to no text: nobody has looked


@dataclass(frozen=True, slots=True)
class Block:
    """What a head reads of one block, prefix tokens left out.

    width, num_tokens: channels and patch tokens of its output; width_in, num_tokens_in: of its input, 0 where that
    cannot be read. lends_ffn: whether queries can use its own FFN; ffn_macs: multiply-adds per query of that, 0 where
    not counted. num_heads: of its own attention, 0 without or where not known.
    """

    width: int
    num_tokens: int
    width_in: int
    num_tokens_in: int
    ffn_macs: int = 0
    lends_ffn: bool = False
    num_heads: int = 0


def format_blocks(blocks: Iterable[Block]) -> str:
    """The text of blocks, last first, as `width x tokens x FFN macs * blocks`; `none` of no block.

    Equal neighbours form a run: `1024x256x8388608*1 512x1024x2097152*18` is a last stage of one block after one of
    eighteen. A block whose input has another shape gives it behind `<`, as in `64x256x0<32x1024*1`.
    """
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


LevelNorm = Literal["own", "fresh", "none"]


@dataclass(frozen=True, slots=True)
class Level:
    """A map that a backbone gives by itself: channels, pixels per cell, and what norm a head puts on it.

    `own`: the backbone's final norm. `fresh`: a LayerNorm of the head. `none`: of a network of BatchNorms.
    """

    width: int
    stride: int
    norm: LevelNorm


def format_levels(levels: Iterable[Level]) -> str:
    """The text of levels as `width x stride : norm`, e.g. `384x16:fresh 768x32:own`."""
    return " ".join(f"{level.width}x{level.stride}:{level.norm}" for level in levels)


@cache
def parse_levels(text: str) -> tuple[Level, ...]:
    """The levels of that text. Raises ValueError for another.

    >>> parse_levels("384x16:fresh 768x32:own")[1]
    Level(width=768, stride=32, norm='own')
    """
    return tuple(_level(*each.replace(":", "x").split("x")) for each in text.split())


def _level(width: str, stride: str, norm: str) -> Level:
    return Level(int(width), int(stride), _NORMS(norm))


_NORMS = _spelled({norm: norm for norm in get_args(LevelNorm)})
