"""What a head is configured to be, and the plan of the head that one backbone gets. Imports no torch.

`HeadConfig` is part of every model and of every stored row. `plan_head` and `plan_eomt` decide a head from plain
numbers; the torch modules (`luma_cli/head`) and the closed forms of their cost (`head_cost.py`) both follow the plan.
Sources: arXiv 2607.00687 (LUMA), which leaves width, heads and stride handling open: the choices are argued below;
arXiv 2503.19108 (EoMT).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from luma_cli.catalogue.costs import Block
from luma_cli.errors import BuildError, UsageError

HeadName = Literal["luma", "eomt", "mask2former", "linear", "none"]
Ffn = Literal["auto", "reused", "fresh"]
TapPoint = Literal["output", "input"]
ReadNorm = Literal["own", "shared"]

# The options that each head has; the others say nothing to it.
HAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "luma": (
            *("num_queries", "num_classes", "l2", "tap", "prefix", "ffn", "width_cap"),
            *("variant", "mask_stride", "layer_scale", "qkv_bias", "read_norm", "query_norm"),
        ),
        "eomt": ("num_queries", "num_classes", "l2", "variant"),
        "mask2former": ("num_queries", "num_classes", "variant"),
        "linear": ("num_classes",),
        "none": (),
    }
)
MASK_STRIDE = 4  # pixels of the image per mask logit, along a side
# What the two descriptions of LUMA that exist say where they differ; docs/understand/heads.md says how sure each is.
VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper-page": {
            "tap": "output",
            "prefix": False,
            "mask_stride": MASK_STRIDE,
            "layer_scale": False,
            "qkv_bias": True,
            "read_norm": "own",
            "query_norm": True,
        },
        "authors-2025": {
            "tap": "input",
            "prefix": True,
            "mask_stride": 0,
            "layer_scale": True,
            "qkv_bias": False,
            "read_norm": "shared",
            "query_norm": False,
        },
    }
)
USUAL = "paper-page"  # the variant of every head that is nothing else
# Systems between Mask2Former and EoMT (arXiv 2503.19108, Table 1), by what makes them another than the head itself.
RUNGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"mask2former": ("adapter", "no-pixel-decoder", "single-scale"), "eomt": ("masked",)}
)
# All of them, the heaviest first, as head and variant: from Mask2Former with an adapter to EoMT.
LADDER: tuple[tuple[HeadName, str], ...] = (
    ("mask2former", "adapter"),
    ("mask2former", USUAL),
    ("mask2former", "no-pixel-decoder"),
    ("mask2former", "single-scale"),
    ("eomt", "masked"),
    ("eomt", USUAL),
)
_CHOICES: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "name": get_args(HeadName),
        "ffn": get_args(Ffn),
        "tap": get_args(TapPoint),
        "mask_stride": (0, 4, 8, 16),
        "read_norm": get_args(ReadNorm),
    }
)
_OF_VARIANT: Any = None  # takes the variant's value


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """What is attached to the backbone.

    name: `luma` (arXiv 2607.00687), `eomt` (arXiv 2503.19108), `mask2former` (arXiv 2112.01527), `linear` (batch norm
    and a 1 x 1 convolution), `none`.
    l2: how many of the last blocks the queries meet; 0 means the head's own number, 1 for LUMA, by depth for EoMT.
    tap: whether LUMA's queries read the output or the input of a tapped block; prefix: whether they see class and
    register tokens as well.
    `ffn="auto"` reuses the backbone's own FFN where its last patch-grid block has a token-wise one, and takes a fresh
    FFN otherwise; `width_cap` bounds the width of a head with a fresh FFN (arXiv 2607.00687 leaves it open: at 2048
    channels the head would be 114 M parameters, larger than a ResNet-50).
    variant: `paper-page` is LUMA as its project page states it, `authors-2025` as its authors' development code means
    it. It gives `tap`, `prefix` and what follows their values unless they are given:
    mask_stride: pixels per mask logit along a side; 0 doubles a map of stride 32 or more once, others as EoMT does.
    layer_scale: a learned factor per channel, 1 at first, on what queries read. qkv_bias: of those projections.
    read_norm: before the read, `own` LayerNorms or the backbone's final norm, `shared`. query_norm: whether the final
    norm is also on the queries that predict.
    Other heads have the variants of `RUNGS`. mask2former: with a ViT-`adapter` (arXiv 2205.08534), without its pixel
    decoder (`no-pixel-decoder`), or with one map for all layers (`single-scale`, without pixel decoder too).
    eomt: `masked` attention in inference too, never annealed.
    """

    name: HeadName = "luma"
    num_queries: int = 100
    num_classes: int = 150
    l2: int = 0
    tap: TapPoint = _OF_VARIANT
    ffn: Ffn = "auto"
    width_cap: int = 768
    prefix: bool = _OF_VARIANT
    variant: str = "paper-page"
    mask_stride: int = _OF_VARIANT
    layer_scale: bool = _OF_VARIANT
    qkv_bias: bool = _OF_VARIANT
    read_norm: ReadNorm = _OF_VARIANT
    query_norm: bool = _OF_VARIANT

    def __post_init__(self) -> None:
        for field, value in VARIANTS.get(self.variant, VARIANTS[USUAL]).items():
            if getattr(self, field) is _OF_VARIANT:
                object.__setattr__(self, field, value)
        for field in ("num_queries", "num_classes", "width_cap"):
            if getattr(self, field) < 1:
                raise UsageError(f"{field} is {getattr(self, field)}, expected at least 1")
        own = {"luma": tuple(VARIANTS), "none": (*VARIANTS, *(each for rungs in RUNGS.values() for each in rungs))}
        variants = own.get(self.name, (USUAL, *RUNGS.get(self.name, ())))
        for field, known in (*_CHOICES.items(), ("variant", variants)):
            if getattr(self, field) not in known:
                raise UsageError(f"{field} is {getattr(self, field)!r}, expected one of {', '.join(map(str, known))}")
        if self.l2 < 0:
            raise UsageError(f"l2 is {self.l2}, expected the number of tapped blocks, 1 or more (0: the head's own)")
        if self.l2 == 0 and self.name != "eomt":
            object.__setattr__(self, "l2", 1)
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        """Refuse an option that is set although the head does not have it; `none` keeps those of the head left out."""
        default = {field.name: field.default for field in fields(self)} | dict(VARIANTS[USUAL])
        default |= {} if self.name == "eomt" else {"l2": 1}
        foreign = [name for name in default if name not in ("name", *HAS[self.name])]
        changed = [name for name in foreign if getattr(self, name) != default[name]]
        if changed and self.name != "none":
            raise UsageError(
                f"{changed[0]}={getattr(self, changed[0])!r} says nothing to head {self.name!r}; leave it out"
            )

    @property
    def design(self) -> str:
        """The variant and what was changed of it; empty for `paper-page` as it is.

        >>> HeadConfig(variant="authors-2025", mask_stride=8).design
        'authors-2025, mask_stride 8'
        """
        if self.variant not in VARIANTS:
            return self.variant
        preset = VARIANTS[self.variant]
        changed = [name for name in preset if name in _DESIGN and getattr(self, name) != preset[name]]
        named = [self.variant] if self.variant != "paper-page" else []
        return ", ".join([*named, *(f"{name} {str(getattr(self, name)).lower()}" for name in changed)])

    @classmethod
    def of(cls, head: HeadConfig | HeadName) -> HeadConfig:
        """The head itself, or the one of that name with its defaults."""
        return cls(name=head) if isinstance(head, str) else head

    def identity(self) -> dict[str, Any]:
        """The fields that decide whether two heads are the same; an option at its default adds nothing to them.

        So heads keep their identity when luma learns new options.
        """
        default = {"prefix": False, "variant": "paper-page", **{name: VARIANTS["paper-page"][name] for name in _DESIGN}}
        return {name: value for name, value in asdict(self).items() if value != default.get(name, _NOT_DROPPED)}


_DESIGN = ("mask_stride", "layer_scale", "qkv_bias", "read_norm", "query_norm")
_NOT_DROPPED = object()

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
    steps: the blocks that they meet before, first to last. mask_stride: pixels per mask logit along a side.
    shares_read_norm: whether the backbone's final norm stands before the read, which needs the map's width.
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
    mask_stride: float = MASK_STRIDE
    shares_read_norm: bool = False

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
    tokens_width, num_tokens = _read(tap, tap.blocks[0], config) if reads_block(config) else (0, 0)
    doublings = num_scale_blocks(tap.stride, config.mask_stride)
    return HeadPlan(
        width_in=tap.width,
        width=width,
        num_heads=_heads(width, tap.num_heads if same else 0),
        num_scale_blocks=doublings,
        ffn="reused" if reused else "fresh",
        shares_final_norm=tap.has_final_norm and same,
        tokens_width=tokens_width,
        num_tokens=num_tokens,
        steps=tuple(_step(tap, back, config) for back in range(config.l2 - 1, 0, -1)),
        mask_stride=config.mask_stride or tap.stride / 2**doublings,
        shares_read_norm=(
            config.read_norm == "shared" and tap.has_final_norm and same and tokens_width in (0, tap.width)
        ),
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
    if config.prefix and not tap.num_prefix_tokens and config.variant == "paper-page":  # else: where there are any
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


def num_scale_blocks(stride: int, mask_stride: int = MASK_STRIDE) -> int:
    """Doublings that bring a map of `stride` nearest to `mask_stride`; a bilinear resize does the rest.

    mask_stride 0: once for a map of stride 32 or more, as the authors' hierarchical networks, others as EoMT.

    >>> [num_scale_blocks(stride) for stride in (2, 4, 8, 14, 16, 32, 64)]
    [0, 0, 1, 2, 2, 3, 4]
    >>> [num_scale_blocks(stride, 0) for stride in (8, 14, 16, 32)]
    [1, 1, 2, 1]
    """
    if not mask_stride:
        return num_eomt_scale_blocks(stride) if stride < 32 else 1
    return max(0, round(math.log2(stride / mask_stride)))


@dataclass(frozen=True, slots=True)
class JointBlocks:
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
    """The decided shape: channels, blocks that queries join, doublings of the map, whose final norm.

    masked: whether queries attend to the patches of their own masks at inference too.
    """

    width: int
    num_joint: int
    num_scale_blocks: int
    shares_final_norm: bool
    masked: bool = False


def plan_eomt(offer: JointBlocks, config: HeadConfig) -> EomtPlan:
    """The EoMT head that `config` asks for. Raises BuildError where queries cannot join so many last blocks."""
    if offer.refusal:
        raise BuildError(f"{offer.name}: EoMT {offer.refusal}; use --head luma")
    if config.l2 > offer.depth:
        raise BuildError(f"{offer.name} has {offer.depth} blocks, got l2 {config.l2}; give at most the depth")
    return EomtPlan(
        width=offer.width,
        num_joint=config.l2 or default_joint_blocks(offer.depth),
        num_scale_blocks=num_eomt_scale_blocks(offer.stride),
        shares_final_norm=offer.has_final_norm,
        masked=config.variant == "masked",
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
