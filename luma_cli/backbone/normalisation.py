"""The mean and standard deviation that a backbone's images are normalised with: those that its checkpoint states.

A segmenter takes images that are normalised already; whoever reads images from files does it with these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timm.models import get_pretrained_cfg

from luma_cli.backbone.timm_model import Recipe, read_config
from luma_cli.catalogue.weights import SOURCES
from luma_cli.errors import WeightsError

_CHANNELS = 3
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """`(image - mean) / std` per channel, in the order red, green, blue, of images with values from 0 to 1.

    source: where the numbers come from, e.g. `timm's config of vit_base_patch16_clip_224.openai`.
    """

    mean: tuple[float, float, float] = _IMAGENET_MEAN
    std: tuple[float, float, float] = _IMAGENET_STD
    source: str = "ImageNet's, as nothing states others"


def normalisation_of(recipe: Recipe, weights: str) -> Normalisation:
    """The numbers for `weights` as in `--weights`.

    A folder's or hub repository's own config.json comes first, then timm's config of the tag in the name, then that of
    the architecture. Raises WeightsError when a config states numbers that are none.
    """
    source = weights if weights.startswith(SOURCES) else recipe.source
    if source and weights != "random":
        stated = read_config(source).get("pretrained_cfg")
        if isinstance(stated, Mapping) and {"mean", "std"} <= stated.keys():
            return _stated(stated, f"config.json of {source}")
    name = f"{recipe.architecture}.{recipe.tag}" if recipe.tag else recipe.architecture
    config = get_pretrained_cfg(name)
    if config is None:
        return Normalisation()
    return _stated({"mean": config.mean, "std": config.std}, f"timm's config of {name}")


def _stated(values: Mapping[str, Any], source: str) -> Normalisation:
    mean, std = _three(values["mean"], source), _three(values["std"], source)
    if min(std) <= 0:
        raise WeightsError(f"{source}: std is {list(std)}, expected three numbers above 0; correct the file")
    return Normalisation(mean, std, source)


def _three(values: Any, source: str) -> tuple[float, float, float]:
    """Three finite numbers; timm writes one where the channels share it."""
    numbers = [values] * _CHANNELS if isinstance(values, (int, float)) else values
    if isinstance(numbers, (list, tuple)) and len(numbers) in (1, _CHANNELS):
        numbers = list(numbers) * (_CHANNELS // len(numbers))
        if all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
            return float(numbers[0]), float(numbers[1]), float(numbers[2])
    raise WeightsError(f"{source}: mean or std is {values!r}, expected three numbers; correct the file")
