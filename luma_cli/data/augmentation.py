"""How training images are changed at random: the ranges of EoMT's semantic recipe (arXiv 2503.19108). No torch.

Source of the numbers: https://github.com/tue-mps/eomt, datasets/transforms.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges and chances, in the order in which they are applied.

    brightness, contrast, saturation: a factor from U(1 - x, 1 + x). hue: a shift from U(-x, x) of the colour circle.
    Each with chance `colour_chance`. flip_chance: left to right. scale_min, scale_max: of the size at which the whole
    image just fits into the crop.
    """

    brightness: float = 32 / 255
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 18 / 360
    colour_chance: float = 0.5
    flip_chance: float = 0.5
    scale_min: float = 0.5
    scale_max: float = 2.0
