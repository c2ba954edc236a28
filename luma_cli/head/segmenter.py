"""A backbone with a head on it: the model that luma profiles and trains, and `build`, which makes one.

B batch, H W pixels, D channels of the tapped block, K queries, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.create import create_backbone, wrap
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BuildError
from luma_cli.head.config import HeadConfig
from luma_cli.head.luma import LumaHead, Prediction
from luma_cli.head.plan import MASK_STRIDE, Tap, plan_head


class Segmenter(nn.Module):
    """A backbone and its head. `ffn` says whose feed-forward layers the queries use; `config` is the head's own."""

    def __init__(self, backbone: Backbone, config: HeadConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        plan = plan_head(tap_of(backbone), config)
        self.ffn: Literal["reused", "fresh"] = plan.ffn
        self.head = LumaHead(plan, config) if config.name == "luma" else None

    def forward(self, images: Tensor) -> Prediction | Tensor:
        """Images [B, 3, H, W] -> class logits [B, K, C + 1], mask logits [B, K, H / 4, W / 4]; no head: features."""
        if self.head is None:
            features: Tensor = self.backbone(images)
            return features
        return self.decode(self.read(images), (images.shape[2], images.shape[3]))

    def read(self, images: Tensor) -> Tensor:
        """What the head takes from the backbone: features [B, D, H / stride, W / stride] of images [B, 3, H, W]."""
        features: Tensor = self.backbone(images) if self.head is None else self.head.read(self.backbone, images)
        return features

    def decode(self, features: Tensor, image_size: tuple[int, int]) -> Prediction:
        """The head alone, on what `read` gave of images of `image_size`."""
        if self.head is None:
            raise BuildError("this segmenter was built with head 'none'; build it with head='luma'")
        mask_size = (image_size[0] // MASK_STRIDE, image_size[1] // MASK_STRIDE)
        prediction: Prediction = self.head(features, mask_size, self.backbone)
        return prediction


def tap_of(backbone: Backbone) -> Tap:
    """What `backbone` offers to a head, as plain numbers. An FFN that takes another width than the map's is none."""
    fits = backbone.query_width == backbone.width
    narrow = "" if fits else f"its FFN takes {backbone.query_width} channels, the map has {backbone.width}"
    return Tap(
        width=backbone.width,
        stride=backbone.stride,
        num_heads=backbone.num_heads,
        has_ffn=bool(backbone.ffn_kind) and fits,
        has_final_norm=backbone.has_final_norm,
        name=backbone.spec.name,
        ffn_reason=backbone.ffn_reason or narrow,
    )


def build(
    name: str | BackboneSpec | nn.Module,
    resolution: int = 512,
    *,
    head: HeadConfig | Literal["luma", "none"] = HeadConfig(),  # noqa: B008  (frozen)
    weights: str = "random",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    card: Mapping[str, Any] | None = None,
) -> Segmenter:
    """A segmenter for square images of `resolution` pixels, in eval mode.

    `name` is anything that `luma profile` takes, or one's own module with `card`, the rule that says where its tapped
    block, FFN and norm are. One's own module is taken over with the weights that it has: moved to `device` and `dtype`,
    and stripped of parameters that its map does not need.

    Raises UnknownName, BadResolution, WeightsError or BuildError.

    >>> build("test_vit", 64).head.plan.ffn  # doctest: +SKIP
    'reused'
    """
    config = HeadConfig(name=head) if isinstance(head, str) else head
    with torch.inference_mode(False):  # a model built inside inference mode could never be trained
        backbone = _backbone(name, resolution, weights, device, seed, card)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with torch.device("meta" if torch.device(device).type == "meta" else "cpu"):
                segmenter = Segmenter(backbone, config)
        return segmenter.to(device=device, dtype=dtype).eval()


def _backbone(
    name: str | BackboneSpec | nn.Module,
    resolution: int,
    weights: str,
    device: str | torch.device,
    seed: int,
    card: Mapping[str, Any] | None,
) -> Backbone:
    if isinstance(name, nn.Module):
        if weights != "random":
            raise BuildError(
                f"weights={weights!r}, but one's own module keeps the weights that it has; leave weights out"
            )
        return wrap(name, own_spec(name, card), resolution)
    if card is not None:
        raise BuildError(f"card= describes one's own module, but {name!r} is a name; leave card out")
    spec = resolve(name) if isinstance(name, str) else name
    return create_backbone(spec, resolution, weights=weights, device=device, seed=seed)


def own_spec(module: nn.Module, card: Mapping[str, Any] | None) -> BackboneSpec:
    """The spec of one's own module: named by its class, described by `card`."""
    name = type(module).__name__
    return BackboneSpec(name=name, timm_name=name, architecture=name, source="import", rule=dict(card or {}))
