"""The Mask2Former head that one backbone gets, and its multiply-adds and parameters. Imports no torch.

Mask2Former (arXiv 2112.01527) reads maps of strides 4, 8, 16 and 32. A level is the backbone's own map of that stride,
else made by scale blocks from its nearest one, as the EoMT article does it for plain transformers (arXiv 2503.19108,
section 3.2). With fewer parts it is the rungs of that article's Table 1 between ViT-Adapter + Mask2Former and EoMT.
K queries, C classes, D channels of a map, d = 256 of the decoders, N = (R / 16)^2, M = 21 N / 4 tokens of three levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from luma_cli.catalogue.costs import Level
from luma_cli.catalogue.heads import MASK_STRIDE, HeadConfig, num_scale_blocks
from luma_cli.errors import BuildError

STRIDES = (4, 8, 16, 32)
WIDTH = 256  # channels of both decoders
NUM_HEADS = 8
NUM_LAYERS = 9  # of the transformer decoder
FFN_WIDTH = 2048
NUM_PIXEL_LAYERS = 6
PIXEL_FFN_WIDTH = 1024
NUM_POINTS = 4  # per head and level of deformable attention
NUM_LEVELS = 3  # that are attended to: all but the finest
_BILINEAR = 4  # weighted neighbours per value
_DEPTHWISE = 9
_NUM_PREDICTIONS = NUM_LAYERS + 1


@dataclass(frozen=True, slots=True)
class LevelOffer:
    """What a backbone offers: its maps, the tapped one last, cells along a side of that, and its plain blocks.

    depth: blocks that can be run one by one; no_blocks: why there are none, empty when there are. num_heads: of these.
    """

    levels: tuple[Level, ...]
    side: int
    resolution: int
    name: str = "this backbone"
    depth: int = 0
    no_blocks: str = ""
    num_heads: int = 1


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """One map that the head reads: made from entry `source` of the maps taken, which has `side` cells along a side.

    steps: scale blocks, those below 0 halve. stride: pixels per cell of the result, rounded.
    """

    source: int
    width: int
    side: int
    steps: int
    stride: int

    @property
    def cells(self) -> int:
        """Cells of the map as the head reads it."""
        side: int = self.side << self.steps if self.steps >= 0 else self.side >> -self.steps
        return side * side


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """The ViT-Adapter: channels and heads of the transformer, its blocks, cells along a side of its map."""

    width: int
    num_heads: int
    depth: int
    side: int


@dataclass(frozen=True, slots=True)
class Mask2FormerPlan:
    """The decided shape. taken: the backbone's maps that are read; maps: those made of them, finest first.

    A single-scale head has two maps: that of the masks, and the tapped one that all layers read.
    """

    taken: tuple[Level, ...]
    maps: tuple[LevelPlan, ...]
    pixel_decoder: bool
    adapter: AdapterPlan | None = None

    @property
    def single_scale(self) -> bool:
        """Whether all layers read one map."""
        return len(self.maps) == 2

    @property
    def mask_cells(self) -> int:
        """Cells of the map that masks are products with."""
        return self.maps[0].cells

    @property
    def attended(self) -> tuple[int, ...]:
        """Cells of the maps that layers read in turn, coarsest first."""
        return (self.maps[1].cells,) * NUM_LEVELS if self.single_scale else tuple(m.cells for m in self.maps[:0:-1])


def plan_mask2former(offer: LevelOffer, config: HeadConfig) -> Mask2FormerPlan:
    """The head that `config` asks for. Raises BuildError where it cannot be built, with what would work."""
    if config.variant == "single-scale":
        return _single_scale(offer)
    if offer.resolution % STRIDES[-1]:
        lower = offer.resolution // STRIDES[-1] * STRIDES[-1]
        sizes = " or ".join(str(size) for size in (lower, lower + STRIDES[-1]) if size)
        raise BuildError(
            f"{offer.name}: --head mask2former reads a map of stride 32, which does not divide {offer.resolution} "
            f"pixels; try --res {sizes}"
        )
    if config.variant == "adapter":
        return _adapted(offer)
    usable = tuple(level for level in offer.levels if _is_power(level.stride) and _fits(offer, level))
    if not usable:
        raise BuildError(
            f"{offer.name}: --head mask2former needs a map of a stride of 2, 4, 8, ... pixels, and its own has "
            f"{offer.side} cells at {offer.resolution} pixels; use --head mask2former --single-scale"
        )
    sources = [_nearest(usable, stride) for stride in STRIDES]
    taken = tuple(level for level in usable if level in sources)
    maps = tuple(
        LevelPlan(
            taken.index(level), level.width, offer.resolution // level.stride, _doublings(level.stride, stride), stride
        )
        for level, stride in zip(sources, STRIDES, strict=True)
    )
    return Mask2FormerPlan(taken, maps, pixel_decoder=config.variant != "no-pixel-decoder")


def _single_scale(offer: LevelOffer) -> Mask2FormerPlan:
    tapped = offer.levels[-1]
    doublings = num_scale_blocks(tapped.stride)
    masks = LevelPlan(0, tapped.width, offer.side, doublings, max(1, tapped.stride // 2**doublings))
    return Mask2FormerPlan((tapped,), (masks, LevelPlan(0, tapped.width, offer.side, 0, tapped.stride)), False)


def _adapted(offer: LevelOffer) -> Mask2FormerPlan:
    if offer.no_blocks or offer.depth < 4:
        raise BuildError(
            f"{offer.name} cannot take the adapter, which works between the blocks of a plain transformer that EoMT "
            "can enter, 4 or more; use --head mask2former without --adapter"
        )
    tapped = offer.levels[-1]
    if offer.side * 16 != offer.resolution:
        raise BuildError(
            f"{offer.name} cannot take the adapter, which needs patches of 16 pixels, not {tapped.stride}; use --head "
            "mask2former without --adapter"
        )
    if tapped.width % (2 * offer.num_heads):
        raise BuildError(
            f"{offer.name} cannot take the adapter: half of its {tapped.width} channels do not divide into "
            f"{offer.num_heads} heads; use --head mask2former without --adapter"
        )
    adapter = AdapterPlan(tapped.width, offer.num_heads, offer.depth, offer.side)
    maps = tuple(LevelPlan(0, tapped.width, offer.resolution // stride, 0, stride) for stride in STRIDES)
    return Mask2FormerPlan((), maps, pixel_decoder=True, adapter=adapter)


def _fits(offer: LevelOffer, level: Level) -> bool:
    return level is not offer.levels[-1] or offer.side * level.stride == offer.resolution


def _is_power(stride: int) -> bool:
    return stride > 0 and stride & (stride - 1) == 0


def _nearest(levels: Sequence[Level], stride: int) -> Level:
    """The level nearest to `stride`, of two the deeper one."""
    return min(levels, key=lambda level: (abs(_doublings(level.stride, stride)), -level.stride))


def _doublings(stride: int, wanted: int) -> int:
    return int(math.log2(stride)) - int(math.log2(wanted))


def mask2former_macs(plan: Mask2FormerPlan, head: HeadConfig, resolution: int) -> int:
    """Multiply-adds of one image."""
    made = sum(_scaling_macs(each) for each in plan.maps)
    made += _adapter_macs(plan.adapter) if plan.adapter else 0
    if plan.pixel_decoder:
        made += _pixel_decoder_macs(plan.maps)
    else:
        made += WIDTH * sum(each.width * each.cells for each in plan.maps)
    finished = int(resolution / MASK_STRIDE) ** 2
    finish = 0 if plan.mask_cells == finished else _BILINEAR * head.num_queries * finished
    return made + _decoder_macs(plan, head) + finish


def mask2former_params(plan: Mask2FormerPlan, head: HeadConfig) -> int:
    """Parameters of the head alone: a final norm that it shares is the backbone's."""
    fresh = sum(2 * level.width for level in plan.taken if level.norm == "fresh")
    made = sum(abs(each.steps) * (4 * each.width**2 + 12 * each.width) for each in plan.maps)
    made += _adapter_params(plan.adapter) if plan.adapter else 0
    widths = sum(each.width for each in plan.maps)
    if plan.pixel_decoder:
        made += _pixel_decoder_params() + WIDTH * widths
    else:
        made += WIDTH * (widths + len(plan.maps))
    return fresh + made + _decoder_params(head)


def _scaling_macs(each: LevelPlan) -> int:
    """A 2 x 2 (transposed) convolution and a depthwise 3 x 3 per scale block."""
    width, side, total = each.width, each.side, 0
    for _ in range(abs(each.steps)):
        smaller = side if each.steps > 0 else side // 2
        side = 2 * side if each.steps > 0 else smaller
        total += 4 * smaller**2 * width**2 + _DEPTHWISE * side**2 * width
    return total


def _pixel_decoder_macs(maps: Sequence[LevelPlan]) -> int:
    d, finest, attended = WIDTH, maps[0], maps[1:]
    tokens = sum(each.cells for each in attended)
    points = NUM_HEADS * NUM_LEVELS * NUM_POINTS
    sampling = 3 * points * d + _BILINEAR * NUM_LEVELS * NUM_POINTS * d  # positions and weights; weighted neighbours
    layer = tokens * (sampling + 2 * d**2 + 2 * d * PIXEL_FFN_WIDTH)
    lateral = finest.cells * (d * finest.width + _BILINEAR * d + (9 + 1) * d**2)  # 1x1, upsampled, 3x3, 1x1
    return sum(d * each.width * each.cells for each in attended) + NUM_PIXEL_LAYERS * layer + lateral


def _pixel_decoder_params() -> int:
    """All but the weights of the first 1 x 1 convolutions."""
    d, points = WIDTH, NUM_HEADS * NUM_LEVELS * NUM_POINTS
    attention = 3 * points * (d + 1) + 2 * (d**2 + d)
    layer = attention + 4 * d + 2 * d * PIXEL_FFN_WIDTH + PIXEL_FFN_WIDTH + d
    enter = NUM_LEVELS * 3 * d  # bias and GroupNorm
    lateral = 2 * d + 9 * d**2 + 2 * d + d**2 + d
    return NUM_PIXEL_LAYERS * layer + enter + NUM_LEVELS * d + lateral


def _decoder_macs(plan: Mask2FormerPlan, head: HeadConfig) -> int:
    d, queries = WIDTH, head.num_queries
    read = NUM_LAYERS // NUM_LEVELS * sum(plan.attended)
    cross = NUM_LAYERS * 2 * queries * d**2 + 2 * read * d**2 + 2 * read * queries * d
    own = NUM_LAYERS * (4 * queries * d**2 + 2 * queries**2 * d + 2 * queries * d * FFN_WIDTH)
    predicted = _NUM_PREDICTIONS * (3 * queries * d**2 + plan.mask_cells * queries * d)
    resized = sum(0 if cells == plan.mask_cells else cells for cells in plan.attended) * NUM_LAYERS // NUM_LEVELS
    return cross + own + predicted + _BILINEAR * queries * resized + queries * d * (head.num_classes + 1)


def _decoder_params(head: HeadConfig) -> int:
    d = WIDTH
    layer = 8 * (d**2 + d) + 2 * d * FFN_WIDTH + FFN_WIDTH + d + 6 * d
    shared = 2 * d + 3 * (d**2 + d) + NUM_LEVELS * d
    return NUM_LAYERS * layer + shared + 2 * head.num_queries * d + (d + 1) * (head.num_classes + 1)


STEM_WIDTHS = (64, 128, 256, 256)  # of the adapter, at strides 4, 8, 16, 32
NUM_INTERACTIONS = 4
NUM_EXTRACTIONS = NUM_INTERACTIONS + 2


def _adapter_macs(plan: AdapterPlan) -> int:
    width, patches = plan.width, plan.side**2
    tokens = 21 * patches // 4
    stem = 64 * patches * 64 * 9 * (3 + 2 * 64)  # three 3x3 at stride 2
    stem += 9 * patches * (4 * 64 * 128 + 128 * 256) + 9 * patches // 4 * 256 * 256
    stem += width * (16 * patches * 64 + 4 * patches * 128 + patches * 256 + patches // 4 * 256)
    injector = _deformable_macs(width, plan.num_heads, NUM_LEVELS, patches, tokens)
    extractor = _deformable_macs(width, plan.num_heads, 1, tokens, patches)
    extractor += tokens * (width // 4 * width * 2 + _DEPTHWISE * (width // 4))
    outputs = _BILINEAR * width * (16 * patches + 4 * patches + patches // 4) + 16 * patches * width**2
    return stem + NUM_INTERACTIONS * injector + NUM_EXTRACTIONS * extractor + outputs


def _deformable_macs(width: int, heads: int, levels: int, queries: int, tokens: int) -> int:
    """Of deformable attention with values of half the width."""
    sampling = 3 * heads * levels * NUM_POINTS * width + _BILINEAR * levels * NUM_POINTS * (width // 2)
    return queries * (sampling + width // 2 * width) + tokens * width * (width // 2)


def _adapter_params(plan: AdapterPlan) -> int:
    width, heads = plan.width, plan.num_heads
    stem = 9 * (3 * 64 + 64 * 64 * 2 + 64 * 128 + 128 * 256 + 256 * 256) + 2 * (3 * 64 + 128 + 256 + 256)
    stem += sum((each + 1) * width for each in STEM_WIDTHS)
    attention = width**2 + width // 2 + width
    injector = 5 * width + attention + 3 * heads * NUM_LEVELS * NUM_POINTS * (width + 1)
    hidden = width // 4
    ffn = (width + 1) * hidden + 10 * hidden + (hidden + 1) * width
    extractor = 6 * width + attention + 3 * heads * NUM_POINTS * (width + 1) + ffn
    rest = NUM_LEVELS * width + 8 * width + 4 * width**2 + width
    return stem + NUM_INTERACTIONS * injector + NUM_EXTRACTIONS * extractor + rest
