"""A backbone with a head on it: the model that luma profiles and trains, and `build`, which makes one.

B batch, H W pixels, D channels of the tapped block, K queries, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from luma_cli.backbone.backbone import Backbone, TokenSequence, joint_blocks
from luma_cli.backbone.create import create_backbone, wrap
from luma_cli.backbone.levels import OwnMap, own_maps
from luma_cli.backbone.query_ffn import QueryFfn
from luma_cli.backbone.taps import Watch, own_heads
from luma_cli.catalogue.costs import Block
from luma_cli.catalogue.heads import MASK_STRIDE, HeadConfig, HeadName, HeadPlan, JointBlocks, Tap, plan_eomt, plan_head
from luma_cli.catalogue.mask2former import LevelOffer, plan_mask2former
from luma_cli.catalogue.names import resolve
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BuildError
from luma_cli.head.adapter import Entered
from luma_cli.head.eomt import EomtHead
from luma_cli.head.linear import LinearHead, PixelLogits
from luma_cli.head.luma import LumaHead, Tapped
from luma_cli.head.mask2former import Maps, Mask2FormerHead
from luma_cli.head.parts import HeadOutput

Head = LumaHead | EomtHead | Mask2FormerHead | LinearHead
Taken = Tensor | Tapped | TokenSequence | Maps | Entered
Output = HeadOutput | PixelLogits


class Segmenter(nn.Module):
    """A backbone and its head. `ffn` says whose feed-forward layers LUMA's queries use; `config` is the head's own."""

    def __init__(self, backbone: Backbone, config: HeadConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.head = create_head(backbone, config)
        self.ffn: Literal["reused", "fresh", "none"] = self.head.plan.ffn if isinstance(self.head, LumaHead) else "none"

    def forward(self, images: Tensor) -> Output | Tensor:
        """Images [B, 3, H, W] -> the head's one prediction, of a head that predicts several times the final one.

        Heads `luma`, `eomt` and `mask2former`: class logits [B, K, C + 1] and mask logits [B, K, H / s, W / s] of mask
        stride s; `linear`: logits [B, C, h, w] on the patch grid; `none`: the features.
        """
        if self.head is None:
            features: Tensor = self.backbone(images)
            return features
        return self.decode(self.read(images), (images.shape[2], images.shape[3]))

    def predictions(self, images: Tensor, draws: Tensor | None = None) -> tuple[Output, ...]:
        """All predictions that are supervised in training, the final one last: one, L2 + 1 of an EoMT head, 10 of a
        Mask2Former head.

        draws: numbers [B, J, K] from U[0, 1) by which an EoMT head of J joint blocks frees queries from their masks.
        Raises BuildError for head `none`, UsageError when draws are needed and missing.
        """
        size = (images.shape[2], images.shape[3])
        if isinstance(self.head, EomtHead):
            joined = self.head.read(self.backbone, images)
            return self.head.predictions(joined, self.mask_size(size), self.backbone, draws)
        if isinstance(self.head, Mask2FormerHead):
            return self.head.predictions(self.head.read(self.backbone, images), self.mask_size(size), self.backbone)
        return (self.decode(self.read(images), size),)

    @property
    def runs_blocks(self) -> bool:
        """Whether blocks of the backbone run inside the head, as those that queries or an adapter enter."""
        adapted = isinstance(self.head, Mask2FormerHead) and self.head.plan.adapter is not None
        return adapted or isinstance(self.head, EomtHead)

    def run_backbone(self, images: Tensor) -> None:
        """Run all of the backbone on images [B, 3, H, W], and of the head only what its blocks run in."""
        if isinstance(self.head, Mask2FormerHead) and self.runs_blocks:
            self.head.pyramid(self.read(images), self.backbone)
        elif self.runs_blocks:
            self(images)
        else:
            self.read(images)

    def read(self, images: Tensor) -> Taken:
        """What the head takes from the backbone of images [B, 3, H, W].

        Features [B, D, H / stride, W / stride], maps of several strides, or the tokens that enter an EoMT head's joint
        blocks.
        """
        taken: Taken = self.backbone(images) if self.head is None else self.head.read(self.backbone, images)
        return taken

    def decode(self, taken: Taken, image_size: tuple[int, int]) -> Output:
        """The head alone, on what `read` gave of images of `image_size`; EoMT's joint blocks belong to it."""
        if self.head is None:
            raise BuildError("this segmenter was built with head 'none'; build it with head='luma'")
        output: Output = self.head(taken, self.mask_size(image_size), self.backbone)
        return output

    def mask_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Side lengths of the mask logits for an image of these, in pixels."""
        stride = self.head.plan.mask_stride if isinstance(self.head, LumaHead) else MASK_STRIDE
        return (int(image_size[0] / stride), int(image_size[1] / stride))


def build(
    name: str | BackboneSpec | nn.Module,
    resolution: int = 512,
    *,
    head: HeadConfig | HeadName = HeadConfig(),  # noqa: B008  (frozen)
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
    config = HeadConfig.of(head)
    with torch.inference_mode(False):  # a model built inside inference mode could never be trained
        if isinstance(name, nn.Module):
            if weights != "random":
                raise BuildError(
                    f"weights={weights!r}, but one's own module keeps the weights that it has; leave weights out"
                )
            backbone = wrap(name, own_spec(name, card), resolution)
        elif card is not None:
            raise BuildError(f"card= describes one's own module, but {name!r} is a name; leave card out")
        else:
            spec = resolve(name) if isinstance(name, str) else name
            backbone = create_backbone(spec, resolution, weights=weights, device=device, seed=seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            with torch.device("meta" if torch.device(device).type == "meta" else "cpu"):
                segmenter = Segmenter(backbone, config)
        return segmenter.to(device=device, dtype=dtype).eval()


def own_spec(module: nn.Module, card: Mapping[str, Any] | None) -> BackboneSpec:
    """The spec of one's own module: named by its class, described by `card`."""
    name = type(module).__name__
    return BackboneSpec(name=name, timm_name=name, architecture=name, source="import", rule=dict(card or {}))


def create_head(backbone: Backbone, config: HeadConfig) -> Head | None:
    """A head with fresh weights from torch's generator; None for `none`. Raises BuildError where it cannot be built."""
    if config.name == "luma":
        plan = plan_head(tap_of(backbone), config)
        return LumaHead(plan, config, _watches(backbone, plan, config))
    if config.name == "eomt":
        offer = JointBlocks(
            width=backbone.width,
            stride=backbone.stride,
            depth=len(joint_blocks(backbone)),
            has_final_norm=backbone.has_final_norm,
            name=backbone.spec.name,
            refusal=backbone.rule.joint_refusal,
        )
        return EomtHead(plan_eomt(offer, config), config)
    if config.name == "mask2former":
        maps = own_maps(backbone)
        return Mask2FormerHead(plan_mask2former(levels_of(backbone, maps), config), config, maps)
    return LinearHead(backbone.width, config) if config.name == "linear" else None


def levels_of(backbone: Backbone, maps: Sequence[OwnMap]) -> LevelOffer:
    """What `backbone` offers to Mask2Former, as plain numbers; maps: those that it gives."""
    return LevelOffer(
        levels=tuple(each.level for each in maps),
        side=backbone.grid[1],
        resolution=backbone.resolution,
        name=backbone.spec.name,
        depth=len(joint_blocks(backbone)),
        no_blocks=backbone.rule.joint_refusal,
        num_heads=backbone.num_heads,
    )


def tap_of(backbone: Backbone) -> Tap:
    """What `backbone` offers to LUMA, as plain numbers. An FFN that takes another width than the map's is none."""
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
        blocks=tuple(block_of(backbone, back) for back in range(len(backbone.sites.found))),
        blocks_reason=backbone.sites.reason,
        num_prefix_tokens=backbone.sites.num_prefix_tokens,
    )


def block_of(backbone: Backbone, back: int) -> Block:
    """What the block that runs `back` blocks before the tapped one offers. An FFN that changes the width is none."""
    site = backbone.sites.found[-1 - back]
    ffn = backbone.earlier_ffn(back) if back else None
    lends = isinstance(ffn, QueryFfn) and ffn.width == site.width
    heads = own_heads(ffn, backbone.rule) if isinstance(ffn, QueryFfn) else 0
    return Block(site.width, site.num_tokens, site.width_in, site.num_tokens_in, lends_ffn=lends, num_heads=heads)


def _watches(backbone: Backbone, plan: HeadPlan, config: HeadConfig) -> list[Watch]:
    """Hooks on the blocks whose own tensors the head reads, in the order in which they run; none for the map alone."""
    skipped = 0 if config.prefix else backbone.sites.num_prefix_tokens
    last = [0] if plan.tokens_width else []
    return [
        Watch(backbone.block(back), backbone.sites.found[-1 - back], input=config.tap == "input", num_skipped=skipped)
        for back in (*(step.back for step in plan.steps), *last)
    ]
