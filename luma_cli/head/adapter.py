"""The ViT-Adapter: a convolutional stem that exchanges with the blocks of a plain transformer (arXiv 2205.08534).

Four times, patches read the stem's levels by deformable attention (injector), a quarter of the blocks runs, and the
levels read the patches (extractor). As DINOv2's segmenters have it (https://github.com/facebookresearch/dinov2,
eval/segmentation_m2f): values of half the width and the transformer's number of heads at every size, no attention of
prefix tokens to the levels. Initial weights: https://github.com/czczup/ViT-Adapter.
B batch, D channels, P prefix and N patch tokens, M = 21 N / 4 tokens of the levels of strides 8, 16 and 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from luma_cli.backbone.backbone import Backbone, TokenSequence, num_prefix_tokens, run_joint_block, tokens_before
from luma_cli.catalogue.mask2former import NUM_INTERACTIONS, NUM_LEVELS, STEM_WIDTHS, STRIDES, AdapterPlan
from luma_cli.head.parts import NORM_EPS
from luma_cli.head.pixel_decoder import DeformableAttention, Size, centres

_STD = 0.02


class Entered(NamedTuple):
    """What the adapter takes: images [B, 3, H, W], and their tokens before the first block."""

    images: Tensor
    sequence: TokenSequence


class Stem(nn.Module):
    """Maps [B, D, H / s, W / s] of strides s of 4, 8, 16 and 32, from convolutions with BatchNorm alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, *others = STEM_WIDTHS
        steps = [nn.Sequential(*_step(3, first, 2), *_step(first, first), *_step(first, first), nn.MaxPool2d(3, 2, 1))]
        for before, after in zip(STEM_WIDTHS, others, strict=False):
            steps.append(nn.Sequential(*_step(before, after, 2)))
        self.steps = nn.ModuleList(steps)
        self.widen = nn.ModuleList(nn.Conv2d(each, width, 1) for each in STEM_WIDTHS)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, 3, H, W] -> maps, finest first."""
        found, pixels = [], images
        for step, widen in zip(self.steps, self.widen, strict=True):
            pixels = step(pixels)
            found.append(widen(pixels))
        return found


def _step(before: int, after: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()


class Read(nn.Module):
    """Normed tokens read other normed tokens by deformable attention."""

    def __init__(self, plan: AdapterPlan, num_levels: int) -> None:
        super().__init__()
        self.norm_queries = nn.LayerNorm(plan.width, eps=NORM_EPS)
        self.norm_tokens = nn.LayerNorm(plan.width, eps=NORM_EPS)
        self.attention = DeformableAttention(plan.width, plan.width // 2, plan.num_heads, num_levels)

    def forward(self, queries: Tensor, places: Tensor, tokens: Tensor, sizes: Sequence[Size]) -> Tensor:
        """As `DeformableAttention.forward`, without a residual."""
        update: Tensor = self.attention(self.norm_queries(queries), places, self.norm_tokens(tokens), sizes)
        return update


class Injector(nn.Module):
    """Patches read the levels, through a gate that is closed at first."""

    def __init__(self, plan: AdapterPlan) -> None:
        super().__init__()
        self.read = Read(plan, NUM_LEVELS)
        self.gate = nn.Parameter(torch.zeros(plan.width))

    def forward(self, patches: Tensor, places: Tensor, levels: Tensor, sizes: Sequence[Size]) -> Tensor:
        """Patches [B, N, D] and levels [B, M, D] -> patches."""
        injected: Tensor = patches + self.gate * self.read(patches, places, levels, sizes)
        return injected


class Extractor(nn.Module):
    """Levels read the patches and pass an FFN with a depthwise convolution in each level."""

    def __init__(self, plan: AdapterPlan) -> None:
        super().__init__()
        hidden = plan.width // 4
        self.read = Read(plan, 1)
        self.norm = nn.LayerNorm(plan.width, eps=NORM_EPS)
        self.grow = nn.Linear(plan.width, hidden)
        self.smooth = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.shrink = nn.Linear(hidden, plan.width)

    def forward(self, levels: Tensor, places: Tensor, sizes: Sequence[Size], patches: Tensor, grid: Size) -> Tensor:
        """Levels [B, M, D] of `sizes` and patches [B, N, D] on `grid` -> levels."""
        levels = levels + self.read(levels, places, patches, (grid,))
        smooth = [self.smooth(each) for each in as_maps(self.grow(self.norm(levels)), sizes)]
        update: Tensor = self.shrink(gelu(as_tokens(smooth)))
        return levels + update


class Adapter(nn.Module):
    """Stem, four interactions with the backbone's blocks, and a normed map per stride. Holds none of these blocks."""

    def __init__(self, plan: AdapterPlan) -> None:
        super().__init__()
        width = plan.width
        self.depth = plan.depth
        self.stem = Stem(width)
        self.levels = nn.Parameter(torch.empty(NUM_LEVELS, width))
        self.injectors = nn.ModuleList(Injector(plan) for _ in range(NUM_INTERACTIONS))
        self.extractors = nn.ModuleList(Extractor(plan) for _ in range(NUM_INTERACTIONS))
        self.extra = nn.ModuleList(Extractor(plan) for _ in range(2))
        self.enlarge = nn.ConvTranspose2d(width, width, 2, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in STRIDES)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        nn.init.normal_(self.levels)
        attentions = [part for part in self.modules() if isinstance(part, DeformableAttention)]
        inside = {id(part) for attention in attentions for part in attention.modules()}  # have weights of their own
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels // part.groups
                nn.init.normal_(part.weight, std=(2 / fan_out) ** 0.5)
            elif isinstance(part, nn.Linear) and id(part) not in inside:
                nn.init.trunc_normal_(part.weight, std=_STD)
            else:
                continue
            if part.bias is not None:
                nn.init.zeros_(part.bias)

    def read(self, backbone: Backbone, images: Tensor) -> Entered:
        """What the adapter takes of images [B, 3, H, W]."""
        return Entered(images, tokens_before(backbone, images, self.depth))

    def forward(self, entered: Entered, backbone: Backbone) -> list[Tensor]:
        """Images and tokens before the first block -> maps [B, D, h, w] of strides 4, 8, 16 and 32."""
        finest, *coarser = self.stem(entered.images)
        sizes = [(each.shape[2], each.shape[3]) for each in coarser]
        levels = as_tokens([each + self.levels[index][:, None, None] for index, each in enumerate(coarser)])
        grid, first = entered.sequence.grid, num_prefix_tokens(backbone)
        patch_places, level_places = centres([grid], levels), centres(sizes, levels)
        sequence, outputs = entered.sequence, []
        ends = [round(self.depth * number / NUM_INTERACTIONS) for number in range(NUM_INTERACTIONS + 1)]
        for number, (injector, extractor) in enumerate(zip(self.injectors, self.extractors, strict=True)):
            prefix, patches = sequence.tokens[:, :first], sequence.tokens[:, first:]
            injected = torch.cat([prefix, injector(patches, patch_places, levels, sizes)], dim=1)
            sequence = sequence._replace(tokens=injected)
            for block in range(ends[number], ends[number + 1]):
                sequence = run_joint_block(backbone, sequence, block)
            patches = sequence.tokens[:, first:]
            levels = extractor(levels, level_places, sizes, patches, grid)
            outputs += as_maps(patches, [grid])
        for extractor in self.extra:
            levels = extractor(levels, level_places, sizes, patches, grid)
        maps = as_maps(levels, sizes)
        maps = [finest + self.enlarge(maps[0]), *maps]
        return [norm(each + _resized(own, each)) for norm, each, own in zip(self.norms, maps, outputs, strict=True)]


def as_tokens(maps: Sequence[Tensor]) -> Tensor:
    """Maps [B, D, h, w] -> tokens [B, M, D], one map after the other."""
    return torch.cat([each.flatten(2).transpose(1, 2) for each in maps], dim=1)


def as_maps(tokens: Tensor, sizes: Sequence[Size]) -> list[Tensor]:
    """The inverse of `as_tokens`, for maps of `sizes`."""
    parts = torch.split(tokens, [rows * columns for rows, columns in sizes], dim=1)
    return [part.transpose(1, 2).reshape(part.shape[0], -1, *size) for part, size in zip(parts, sizes, strict=True)]


def _resized(pixels: Tensor, like: Tensor) -> Tensor:
    size = like.shape[2:]
    return pixels if pixels.shape[2:] == size else interpolate(pixels, size, mode="bilinear", align_corners=False)
