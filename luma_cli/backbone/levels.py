"""The maps of several strides that a backbone gives by itself, for heads that read more than the tapped one.

Of every stride the last map is taken, and the tapped one in any case. They are found by one forward on the meta device.
B batch, D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from luma_cli.backbone.backbone import Backbone, meta_twin
from luma_cli.catalogue.costs import Level, LevelNorm
from luma_cli.catalogue.mask2former import STRIDES

# What timm's models raise where they cannot give intermediate maps; there is no error of its own for it.
_FAILURES = (RuntimeError, AssertionError, ValueError, IndexError, TypeError, AttributeError, NotImplementedError)


@dataclass(frozen=True, slots=True)
class OwnMap:
    """One map: what a head is told of it, and its place among all that the model's `forward_intermediates` gives."""

    level: Level
    index: int


def own_maps(backbone: Backbone) -> tuple[OwnMap, ...]:
    """The maps of a backbone, finest first, the tapped one last."""
    tapped = Level(backbone.width, backbone.stride, _tapped_norm(backbone))
    shapes = _shapes(backbone)
    last = _tapped_index(backbone, len(shapes))
    found: dict[int, OwnMap] = {}
    for index, (width, height, breadth) in enumerate(shapes[:last]):
        stride = backbone.resolution // max(1, height)
        exact = height == breadth and height * stride == backbone.resolution
        if exact and stride in STRIDES and stride != backbone.stride:
            found[stride] = OwnMap(Level(width, stride, "none" if _has_batch_norm(backbone) else "fresh"), index)
    return (*(found[stride] for stride in sorted(found)), OwnMap(tapped, last))


def read_maps(backbone: Backbone, images: Tensor, maps: Sequence[OwnMap]) -> tuple[Tensor, ...]:
    """These maps [B, D, H / stride, W / stride] of images [B, 3, H, W], in their order, before any norm of the head."""
    if len(maps) == 1 and maps[0].level.stride == backbone.stride:
        return (backbone(images),)
    wanted = sorted({each.index for each in maps})
    given = backbone.model.forward_intermediates(  # type: ignore[operator]
        images, indices=wanted, intermediates_only=True, output_fmt="NCHW"
    )
    by_index = dict(zip(wanted, given, strict=True))
    return tuple(by_index[each.index] for each in maps)


def _shapes(backbone: Backbone) -> list[tuple[int, int, int]]:
    """Channels, height and width of all maps that the model gives; none where it gives the tapped one alone."""
    if backbone.rule.features in ("forward", "tokens"):
        return []
    twin, side = meta_twin(backbone), backbone.resolution
    try:
        with torch.no_grad():
            images = torch.zeros(1, 3, side, side, device="meta")
            given = twin.model.forward_intermediates(  # type: ignore[operator]
                images, intermediates_only=True, output_fmt="NCHW"
            )
    except _FAILURES:  # a model that cannot give them all still gives the tapped one
        return []
    return [(each.shape[1], each.shape[2], each.shape[3]) for each in given]


def _tapped_index(backbone: Backbone, num_maps: int) -> int:
    indices = backbone.rule.indices
    if isinstance(indices, int):
        return max(0, num_maps - 1)
    return indices[-1] % num_maps if num_maps else 0


def _tapped_norm(backbone: Backbone) -> LevelNorm:
    if backbone.has_final_norm:
        return "own"
    return "none" if _has_batch_norm(backbone) else "fresh"


def _has_batch_norm(backbone: Backbone) -> bool:
    """Networks of BatchNorms normalise their maps themselves."""
    return any(isinstance(part, nn.BatchNorm2d) for part in backbone.modules())
