"""The cost of a segmenter that is already built, counted in this process: own modules, and proof of the formula."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import torch

from luma_cli.catalogue.heads import needs_blocks
from luma_cli.head.eomt import EomtHead
from luma_cli.head.luma import LumaHead
from luma_cli.head.segmenter import Segmenter, Taken
from luma_cli.measure.cost import Cost
from luma_cli.measure.count import Count, count
from luma_cli.measure.facts import RGB, meta_twin, num_active_parameters, num_parameters


def segmenter_cost(segmenter: Segmenter) -> Cost:
    """Counted cost of `segmenter` on one image of its backbone's resolution; the head's is what it adds.

    An EoMT head does not stand apart from the backbone, so that the whole is counted and the backbone's own taken off.
    """
    twin = meta_twin(segmenter)
    side = twin.backbone.resolution
    backbone, features = _backbone_count(twin, side)
    head = _head_count(twin, backbone, features, side)
    return Cost(
        backbone=twin.backbone.spec.name,
        architecture=twin.backbone.spec.architecture,
        resolution=side,
        head=twin.config,
        backbone_macs=backbone.macs,
        head_macs=head.macs,
        backbone_params=num_parameters(twin.backbone),
        backbone_active_params=num_active_parameters(twin.backbone),
        head_params=num_parameters(twin.head) if twin.head is not None else 0,
        activations=backbone.activations,
        width=twin.backbone.width,
        stride=twin.backbone.stride,
        num_tokens=features.shape[2] * features.shape[3],
        ffn=twin.ffn,
        l2=_num_blocks(twin),
        complete=backbone.complete and head.complete,
        unknown_ops=tuple(sorted({*backbone.unknown_ops, *head.unknown_ops})),
        timm=version("timm"),
        source="counted",
    )


def _backbone_count(twin: Segmenter, side: int) -> tuple[Count, torch.Tensor]:
    """The backbone's count and the features that it gave."""
    features: list[torch.Tensor] = []
    images = torch.empty(1, RGB, side, side, device="meta")
    counted = count(lambda: features.append(twin.backbone(images)))
    return counted, features[0]


def _num_blocks(twin: Segmenter) -> int:
    if isinstance(twin.head, EomtHead):
        return twin.head.plan.num_joint
    return twin.config.l2 if isinstance(twin.head, LumaHead) else 0


def _taken(twin: Segmenter, features: torch.Tensor, side: int) -> Taken:
    """What the head takes: the features at hand, unless it reads blocks besides."""
    plain = not isinstance(twin.head, LumaHead) or not needs_blocks(twin.config)
    return features if plain else twin.read(torch.empty(1, RGB, side, side, device="meta"))


def _head_count(twin: Segmenter, backbone: Count, features: torch.Tensor, side: int) -> Count:
    """What the head adds; operators that are not understood are those of its own pass."""
    if twin.head is None:
        return Count(0, 0)
    if not isinstance(twin.head, EomtHead):
        return count(twin.decode, _taken(twin, features, side), (side, side))
    whole = count(twin, torch.empty(1, RGB, side, side, device="meta"))
    return replace(whole, macs=whole.macs - backbone.macs, activations=whole.activations - backbone.activations)
