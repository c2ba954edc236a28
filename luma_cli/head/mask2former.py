"""The Mask2Former head: queries that read maps of several strides in turn, each within its own mask (arXiv 2112.01527).

Maps that a backbone lacks are made by scale blocks; without a pixel decoder, or with one map alone, it is one of the
systems on the way to EoMT (arXiv 2503.19108, section 3.2 and Table 1). Details where the paper is silent:
https://github.com/facebookresearch/Mask2Former, modeling/transformer_decoder.
B batch, K queries, D channels of a map, d = 256 of the decoders, C classes; maps are finest first unless said so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, logical_or, nn
from torch.nn.functional import interpolate, relu, scaled_dot_product_attention

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.levels import OwnMap, read_maps
from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.mask2former import (
    FFN_WIDTH,
    NUM_HEADS,
    NUM_LAYERS,
    NUM_LEVELS,
    WIDTH,
    LevelPlan,
    Mask2FormerPlan,
)
from luma_cli.head.adapter import Adapter, Entered
from luma_cli.head.parts import NORM_EPS, HeadOutput, ScaleBlock, ShrinkBlock
from luma_cli.head.pixel_decoder import PixelDecoder, Size, sine_positions


class Maps(NamedTuple):
    """What the head takes from the backbone: maps [B, D, h, w] as it gives them."""

    maps: tuple[Tensor, ...]


class Pyramid(nn.Module):
    """The maps that the head reads, from those that are taken: normed, then enlarged or shrunk, each by itself."""

    def __init__(self, plan: Mask2FormerPlan) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            nn.LayerNorm(level.width, eps=NORM_EPS) if level.norm == "fresh" else nn.Identity() for level in plan.taken
        )
        self.own = tuple(level.norm == "own" for level in plan.taken)
        self.sources = tuple(each.source for each in plan.maps)
        self.steps = nn.ModuleList(nn.Sequential(*_blocks(each)) for each in plan.maps)

    def forward(self, taken: Maps, backbone: Backbone) -> list[Tensor]:
        """Maps as the backbone gives them -> those that the plan names."""
        normed = [
            _normed(each, backbone.norm_tokens if own else norm)
            for each, norm, own in zip(taken.maps, self.norms, self.own, strict=True)
        ]
        return [steps(normed[source]) for steps, source in zip(self.steps, self.sources, strict=True)]


def _blocks(plan: LevelPlan) -> list[nn.Module]:
    return [ScaleBlock(plan.width) if plan.steps > 0 else ShrinkBlock(plan.width) for _ in range(abs(plan.steps))]


def _normed(pixels: Tensor, norm: object) -> Tensor:
    """A map [B, D, h, w] after a norm of tokens [B, N, D]."""
    if isinstance(norm, nn.Identity):
        return pixels
    tokens: Tensor = norm(pixels.flatten(2).transpose(1, 2))  # type: ignore[operator]
    return tokens.transpose(1, 2).reshape(pixels.shape)


class Projections(nn.Module):
    """1 x 1 convolutions to d channels in place of a pixel decoder."""

    def __init__(self, plan: Mask2FormerPlan) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(each.width, WIDTH, 1) for each in plan.maps)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """As `PixelDecoder.forward`; of two maps the second is all levels."""
        masks, *levels = (layer(each) for layer, each in zip(self.convolutions, maps, strict=True))
        return masks, levels[::-1] if len(levels) > 1 else levels * NUM_LEVELS


class Attention(nn.Module):
    """Multi-head attention, whose keys may differ from its values by their positions."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Queries [B, K, d], keys and values [B, N, d], mask boolean [B, 1, K, N], true where seen -> [B, K, d]."""
        asked, offered, given = (
            layer(each).view(*each.shape[:2], NUM_HEADS, -1).transpose(1, 2)
            for layer, each in ((self.query, queries), (self.key, keys), (self.value, values))
        )
        read = scaled_dot_product_attention(asked, offered, given, attn_mask=mask)
        update: Tensor = self.out(read.transpose(1, 2).flatten(2))
        return update


class DecoderLayer(nn.Module):
    """Masked cross-attention to a map, self-attention among queries, and a ReLU FFN, each followed by a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.cross, self.own = Attention(), Attention()
        self.cross_norm, self.own_norm, self.ffn_norm = (nn.LayerNorm(WIDTH) for _ in range(3))
        self.grow = nn.Linear(WIDTH, FFN_WIDTH)
        self.shrink = nn.Linear(FFN_WIDTH, WIDTH)

    def forward(self, queries: Tensor, where: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Queries [B, K, d] and their positions [K, d] -> [B, K, d]; keys, values, mask: as `Attention.forward`."""
        queries = self.cross_norm(queries + self.cross(queries + where, keys, values, mask))
        placed = queries + where
        queries = self.own_norm(queries + self.own(placed, placed, queries))
        normed: Tensor = self.ffn_norm(queries + self.shrink(relu(self.grow(queries))))
        return normed


class TransformerDecoder(nn.Module):
    """Nine layers, which read the coarsest, the middle and the finer level in turn, with masks before and after."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.queries = nn.Embedding(config.num_queries, WIDTH)
        self.places = nn.Embedding(config.num_queries, WIDTH)
        self.levels = nn.Embedding(NUM_LEVELS, WIDTH)
        self.layers = nn.ModuleList(DecoderLayer() for _ in range(NUM_LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.mask = nn.Sequential(
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
        )
        for parameter in self.layers.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, masks: Tensor, levels: Sequence[Tensor], *, keep_all: bool) -> list[tuple[Tensor, Tensor]]:
        """The map of the masks [B, d, h, w] and three levels, coarsest first -> normed queries and their mask logits.

        Queries [B, K, d] and logits [B, K, h, w] after the last layer, behind those before each layer with `keep_all`.
        """
        values = [level.flatten(2).transpose(1, 2) + self.levels.weight[index] for index, level in enumerate(levels)]
        keys = [value + sine_positions(_size(level), value) for value, level in zip(values, levels, strict=True)]
        queries = self.queries.weight.to(masks.dtype).expand(masks.shape[0], -1, -1)
        found = []
        for number, layer in enumerate(self.layers):
            at = number % NUM_LEVELS
            normed, logits = self._masks(queries, masks)
            if keep_all:
                found.append((normed, logits))
            queries = layer(queries, self.places.weight, keys[at], values[at], attended(logits, _size(levels[at])))
        return [*found, self._masks(queries, masks)]

    def _masks(self, queries: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Normed queries [B, K, d] and their mask logits [B, K, h, w]."""
        normed = self.norm(queries)
        return normed, (self.mask(normed) @ masks.flatten(2)).view(*normed.shape[:2], *masks.shape[2:])


def _size(level: Tensor) -> Size:
    return level.shape[2], level.shape[3]


def attended(mask_logits: Tensor, size: Size) -> Tensor:
    """Boolean [B, 1, K, N]: a query sees the cells of its own mask, and all cells where its mask has none.

    mask_logits: [B, K, h, w], of which no gradient is taken; resized bilinearly to `size` first.
    """
    inside = _resized(mask_logits.detach(), size).flatten(2) >= 0
    return logical_or(inside, ~inside.any(2, keepdim=True))[:, None]


class Mask2FormerHead(nn.Module):
    """Pyramid, pixel decoder or projections, and transformer decoder. Holds no parameter of the backbone."""

    def __init__(self, plan: Mask2FormerPlan, config: HeadConfig, maps: Sequence[OwnMap]) -> None:
        super().__init__()
        self.plan = plan
        self._own = tuple(each for each in maps if each.level in plan.taken)
        self.pyramid = Pyramid(plan) if plan.adapter is None else Adapter(plan.adapter)
        self.pixels = PixelDecoder(plan) if plan.pixel_decoder else Projections(plan)
        self.decoder = TransformerDecoder(config)
        self.classify = nn.Linear(WIDTH, config.num_classes + 1)

    def read(self, backbone: Backbone, images: Tensor) -> Maps | Entered:
        """The maps that the head takes of images [B, 3, H, W], or what an adapter takes."""
        if isinstance(self.pyramid, Adapter):
            return self.pyramid.read(backbone, images)
        return Maps(read_maps(backbone, images, self._own))

    def forward(self, taken: Maps | Entered, mask_size: Size, backbone: Backbone) -> HeadOutput:
        """What `read` gave and the side lengths of the masks -> the final prediction."""
        return self._run(taken, mask_size, backbone, keep_all=False)[-1]

    def predictions(self, taken: Maps | Entered, mask_size: Size, backbone: Backbone) -> tuple[HeadOutput, ...]:
        """All supervised predictions, one before each layer and the final one last."""
        return tuple(self._run(taken, mask_size, backbone, keep_all=True))

    def _run(self, taken: Maps | Entered, mask_size: Size, backbone: Backbone, *, keep_all: bool) -> list[HeadOutput]:
        masks, levels = self.pixels(self.pyramid(taken, backbone))
        found = self.decoder(masks, levels, keep_all=keep_all)
        return [HeadOutput(self.classify(queries), _resized(logits, mask_size)) for queries, logits in found]


def _resized(maps: Tensor, size: Size) -> Tensor:
    return maps if maps.shape[2:] == size else interpolate(maps, size, mode="bilinear", align_corners=False)
