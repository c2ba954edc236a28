"""One random change of a training image, as numbers: what is drawn before any pixel is touched. No torch.

H W pixels of the image, R side of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from luma_cli.catalogue.recipes import Augmentation


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to an image and its label map, in this order; None leaves a step out.

    brightness; contrast where `contrast_first`; saturation; hue; contrast where not; flip left to right; resizing to
    height x width; padding below and to the right up to R; the crop R x R from (top, left).
    """

    brightness: float | None
    contrast: float | None
    contrast_first: bool
    saturation: float | None
    hue: float | None
    flip: bool
    height: int
    width: int
    top: int
    left: int


def draw_change(rng: np.random.Generator, size: tuple[int, int], resolution: int, augmentation: Augmentation) -> Change:
    """The next change of an image of size (H, W) for crops of `resolution` R; always takes 13 numbers from `rng`.

    A scale of 1 is where the whole image just fits into the crop, as torchvision's ScaleJitter has it. Sides are
    rounded down, to at least one pixel.
    """
    chances, places = rng.random(6), rng.random(7)
    fits = min(resolution / size[0], resolution / size[1])
    scale = augmentation.scale_min + places[4] * (augmentation.scale_max - augmentation.scale_min)
    height, width = (max(1, int(side * fits * scale)) for side in size)
    ranges = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
    spreads = [
        float(spread * (2 * place - 1)) if chance < augmentation.colour_chance else None
        for spread, chance, place in zip(ranges, chances, places, strict=False)
    ]
    brightness, contrast, saturation = (None if spread is None else 1 + spread for spread in spreads[:3])
    return Change(
        brightness=brightness,
        contrast=contrast,
        contrast_first=bool(chances[4] < 0.5),
        saturation=saturation,
        hue=spreads[3],
        flip=bool(chances[5] < augmentation.flip_chance),
        height=height,
        width=width,
        top=int(places[5] * (max(height, resolution) - resolution + 1)),
        left=int(places[6] * (max(width, resolution) - resolution + 1)),
    )
