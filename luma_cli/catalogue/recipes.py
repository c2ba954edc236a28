"""Recipes of fine-tuning: every number that decides what is learnt, by name or from a file, with changes, checked.

Shipped recipes are the TOML files in `profiles/recipes/`; docs/reference/recipes.md describes the format. The defaults
are EoMT's for ADE20K with DINOv2 (arXiv 2503.19108, section 4.1, and https://github.com/tue-mps/eomt). LUMA is assumed
to share them: arXiv 2607.00687 gives no others. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from luma_cli import files
from luma_cli.catalogue.reading import nearest
from luma_cli.errors import BadCard, BadRecipe

Dtype = Literal["auto", "bf16", "fp16", "fp32"]
BatchNorm = Literal["auto", "sync", "train", "frozen"]
Schedule = Literal["poly", "cosine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes of training images, in the order in which they are applied (EoMT's datasets/transforms.py).

    brightness, contrast, saturation: a factor from U(1 - x, 1 + x). hue: a shift from U(-x, x) of the colour circle.
    Each with probability `colour_chance`. flip_chance: left to right; vflip_chance: upside down. rotate_degrees: turned
    by an angle from U(-x, x), 0 for never. scale_min, scale_max: relative to the size at which the whole image just
    fits into the crop.
    """

    brightness: float = 32 / 255
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 18 / 360
    colour_chance: float = 0.5
    flip_chance: float = 0.5
    vflip_chance: float = 0.0
    rotate_degrees: float = 0.0
    scale_min: float = 0.5
    scale_max: float = 2.0


@dataclass(frozen=True, slots=True)
class Recipe(Augmentation):
    """Settings of a training. Steps are those of the optimiser; `lr` is that of the head and of the last block.

    epochs or steps: one of them is 0 and the other is the length. batch: images per step, over all processes and
    micro-batches. backbone_lr: factor of `lr` for the whole backbone. layer_decay: factor of `lr` per block from the
    last, 1 for none; nets of more than decay_blocks blocks get it over so many, 0 for never. joint_decay: whether an
    EoMT head's joint blocks get it too. warmup_head_steps, then warmup_backbone_steps: the backbone is frozen during
    the first. schedule: of the rate afterwards, to 0 at the end. clip_norm: of the whole gradient, 0 for none.
    anneal_starts, anneal_ends: of an EoMT head, per joint block, the earliest first: shares of all steps, or steps
    where any end is above 1; empty for EoMT's own. rope_rescale: DINOv3's coordinates are scaled in training by up to
    this factor or its inverse, 1 for never. ema_decay: 0 for none. batch_norm: `auto` is sync over several GPUs, train
    from 8 images per process and frozen below. dtype `auto`: bf16 where the GPU has it, else fp32. freeze: so many
    first blocks rest, and what comes before them. patience: validations without a better mIoU after which the training
    ends, 0 for never. eval_every_epochs: 0 for at the end only.
    """

    name: str = "ade20k"
    source: str = ""
    epochs: float = 31
    steps: int = 0
    batch: int = 16
    lr: float = 1e-4
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    backbone_lr: float = 1.0
    layer_decay: float = 0.8
    decay_blocks: int = 24
    joint_decay: bool = True
    warmup_head_steps: int = 500
    warmup_backbone_steps: int = 1000
    schedule: Schedule = "poly"
    poly_power: float = 0.9
    clip_norm: float = 0.01
    bce_weight: float = 5.0
    dice_weight: float = 5.0
    class_weight: float = 2.0
    no_object_weight: float = 0.1
    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_ratio: float = 0.75
    anneal_starts: tuple[float, ...] = ()
    anneal_ends: tuple[float, ...] = ()
    rope_rescale: float = 1.0
    ema_decay: float = 0.0
    batch_norm: BatchNorm = "auto"
    dtype: Dtype = "auto"
    freeze_backbone: bool = False
    freeze: int = 0
    patience: int = 0
    eval_every_epochs: float = 1.0

    @property
    def anneals_in_steps(self) -> bool:
        """Whether masks are annealed from step to step, and not from share to share of the training."""
        return max(self.anneal_ends, default=0) > 1

    def augmentation(self) -> Augmentation:
        """The settings that say how images are changed."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})


TYPES = get_type_hints(Recipe)
SETTINGS = tuple(name for name in TYPES if name not in ("name", "source"))
_SUFFIX = ".toml"
_OWN_RECIPE = "small"  # of datasets without one of their own
# Warm-ups that would take more than a fifth of a training are shortened to a tenth of it.
_MOST_WARMUP, _SHORT_WARMUP = 5, 10


def folder() -> Path:
    """Folder of the shipped recipes."""
    return files.root() / "profiles" / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, in alphabetical order."""
    return sorted(path.stem for path in folder().glob(f"*{_SUFFIX}"))


def default_recipe(dataset: str, head: str, known: Sequence[str], timm_name: str = "") -> str:
    """The name of the recipe for a dataset, a head and a backbone; `small` where the dataset has none.

    Mask2Former has EoMT's, as in the comparison of the two (arXiv 2503.19108, section 4.1).

    >>> default_recipe("cityscapes", "eomt", ["ade20k", "cityscapes", "eomt-cityscapes"])
    'eomt-cityscapes'
    """
    own = dataset if dataset in known else _OWN_RECIPE
    names = [f"eomt-{own}-dinov3"] if "dinov3" in timm_name else []
    return next((name for name in (*names, f"eomt-{own}") if head in ("eomt", "mask2former") and name in known), own)


def load_recipe(name_or_file: str) -> Recipe:
    """The shipped recipe of this name, or the one in a TOML file, which is named by its file.

    Raises BadRecipe with everything that is wrong with it.

    >>> load_recipe("cityscapes").epochs
    107.0
    """
    path = (
        folder() / f"{name_or_file}{_SUFFIX}"
        if name_or_file in recipe_names()
        else Path(os.path.expanduser(name_or_file))
    )
    if not os.path.isfile(path):  # unlike Path.is_file, no error for a name that is too long
        raise BadRecipe(_unknown(name_or_file))
    try:
        values = files.read_toml(path)
    except BadCard as error:
        raise BadRecipe(f"{error}; docs/reference/recipes.md describes the format") from error
    name, found = path.stem, [_unknown_setting(key) for key in values if key not in TYPES]
    if values.get("name", name) != name:
        found.append(f"name is {values['name']!r}, expected {name!r} as the file; leave it out")
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items() if key in TYPES}
    recipe = _with(Recipe(), {**known, "name": name})
    _refuse(str(path), [*found, *_problems(recipe)])
    return recipe


def _unknown(name: str) -> str:
    known = ", ".join(recipe_names())
    if name.endswith(_SUFFIX) or "/" in name:
        return f"there is no recipe file {name!r}; give a TOML file or one of {known}"
    near = nearest(name, recipe_names(), 1)
    return f"unknown recipe {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"give one of {known}, or a file")


def _unknown_setting(name: str) -> str:
    near = nearest(name, SETTINGS, 1)
    return f"unknown setting {name!r}; " + (
        f"did you mean {near[0]!r}?" if near else "docs/reference/recipes.md lists them"
    )


def with_changes(recipe: Recipe, changes: Sequence[str]) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe with settings from `name=value` texts, and the names of those that now differ from it.

    A list is written with commas. Raises BadRecipe with everything that is wrong.

    >>> with_changes(load_recipe("ade20k"), ["lr=2e-4", "steps=100"])[1]
    ('epochs', 'steps', 'lr')
    """
    found: list[str] = []
    values: dict[str, Any] = {}
    for change in changes:
        name, equals, text = (part.strip() for part in change.partition("="))
        if not equals:
            found.append(f"{change!r} is not a change; type --set {name or 'lr'}=VALUE")
        elif name not in SETTINGS:
            found.append(_unknown_setting(name))
        else:
            values[name] = _value(name, text)
    changed = _with(recipe, values)
    _refuse(recipe.name, [*found, *_problems(changed)])
    return changed, tuple(name for name in SETTINGS if getattr(recipe, name) != getattr(changed, name))


def _value(name: str, text: str) -> Any:
    """`text` as the type of the setting; text that cannot be read stays text, which the check then refuses."""
    kind = TYPES[name]
    try:
        if get_origin(kind) is tuple:
            return tuple(float(part) for part in text.strip("[]() ").split(",") if part.strip())
        if get_origin(kind) is Literal:
            return text
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        return text


def _with(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values; a new number of epochs replaces that of steps, and the other way round."""
    said = [name for name in ("epochs", "steps") if name in values]
    length: dict[str, Any] = {"epochs": 0, "steps": 0} if len(said) == 1 else {}
    # A whole number becomes a float where the setting is one, so that equal recipes are written alike.
    typed: dict[str, Any] = {
        name: float(v) if TYPES[name] is float and type(v) is int else v for name, v in values.items()
    }
    return replace(recipe, **{**length, **typed})


def fitted_warmups(recipe: Recipe, num_steps: int) -> Recipe:
    """The recipe with warm-ups that fit a training of `num_steps` steps, in its own proportion where they are cut.

    >>> short = fitted_warmups(load_recipe("ade20k"), 680)
    >>> short.warmup_head_steps, short.warmup_backbone_steps
    (22, 46)
    """
    warmup = recipe.warmup_head_steps + recipe.warmup_backbone_steps
    if warmup * _MOST_WARMUP <= num_steps:
        return recipe
    total = num_steps // _SHORT_WARMUP
    head = total * recipe.warmup_head_steps // warmup
    return replace(recipe, warmup_head_steps=head, warmup_backbone_steps=total - head)


def check(recipe: Recipe, num_steps: int, num_joint: int = 0) -> None:
    """Raise BadRecipe with every problem of a training of `num_steps` optimiser steps, before it starts.

    num_joint: joint blocks of an EoMT head; 0 for heads that have none, whose annealing is not checked.
    """
    found = list(_problems(recipe))
    warmup = recipe.warmup_head_steps + recipe.warmup_backbone_steps
    if warmup >= num_steps:
        fit = fitted_warmups(recipe, num_steps)
        found.append(
            f"the warm-ups take {recipe.warmup_head_steps} + {recipe.warmup_backbone_steps} steps, but the training "
            f"has {num_steps}; type --set warmup_head_steps={fit.warmup_head_steps} "
            f"--set warmup_backbone_steps={fit.warmup_backbone_steps}, or add steps"
        )
    last = max(recipe.anneal_ends, default=0)
    if num_joint and recipe.anneals_in_steps and last > num_steps:
        found.append(
            f"masks are annealed until step {last:g}, but the training has {num_steps}; type --set anneal_starts= "
            "--set anneal_ends= for shares of it, or add steps"
        )
    _refuse(recipe.name, found)


def _refuse(name: str, found: Sequence[str]) -> None:
    if found:
        raise BadRecipe(f"recipe {name}: {'; '.join(found)}")


# The least and the greatest value that makes sense.
_LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(
        ("epochs", "steps", "eval_every_epochs", "warmup_head_steps", "warmup_backbone_steps", "decay_blocks"), (0, inf)
    ),
    **dict.fromkeys(("freeze", "patience"), (0, inf)),
    **dict.fromkeys(("weight_decay", "poly_power", "clip_norm"), (0, inf)),
    **dict.fromkeys(("bce_weight", "dice_weight", "class_weight", "no_object_weight"), (0, inf)),
    **dict.fromkeys(("batch", "num_points", "oversample_ratio", "rope_rescale"), (1, inf)),
    **dict.fromkeys(("importance_ratio", "colour_chance", "flip_chance", "vflip_chance"), (0, 1)),
    "rotate_degrees": (0, 180),
    **dict.fromkeys(("brightness", "contrast", "saturation"), (0, 1)),
    "hue": (0, 0.5),
    "layer_decay": (1e-3, 1),
}
_ABOVE_ZERO = ("lr", "backbone_lr", "eps", "scale_min", "scale_max")
_BELOW_ONE = ("beta1", "beta2", "ema_decay")
_EXPECTED = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}


def _problems(recipe: Recipe) -> Iterator[str]:
    """What is wrong with a recipe by itself; ranges are only looked at where every type is right."""
    wrong = {name: said for name in TYPES if (said := _wrong_type(name, getattr(recipe, name)))}
    if wrong:
        yield from (f"{name} is {getattr(recipe, name)!r}, expected {said}" for name, said in wrong.items())
        return
    if recipe.epochs and recipe.steps:
        yield f"both epochs ({recipe.epochs:g}) and steps ({recipe.steps}) are set; set one of them to 0"
    if not recipe.epochs and not recipe.steps:
        yield "neither epochs nor steps is set; type --epochs 31 or --steps 40000"
    yield from _out_of_range(recipe)
    starts, ends = recipe.anneal_starts, recipe.anneal_ends
    if len(starts) != len(ends):
        yield f"{len(starts)} anneal_starts but {len(ends)} anneal_ends, expected one of each per joint block"
    for start, end in zip(starts, ends, strict=False):
        if not 0 <= start <= end:
            yield f"masks are annealed from {start:g} to {end:g}, expected shares or steps with 0 <= start <= end"
    if recipe.anneals_in_steps and any(value % 1 for value in (*starts, *ends)):
        yield f"masks are annealed until {max(ends):g}, expected shares of at most 1, or whole steps"


def _wrong_type(name: str, value: object) -> str:
    """The type that the setting takes, in words; empty when `value` has it."""
    kind, is_number = TYPES[name], type(value) in (int, float)  # True is no number
    if get_origin(kind) is Literal:
        return "" if value in get_args(kind) else f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        fits = isinstance(value, tuple) and all(type(share) in (int, float) for share in value)
        return "" if fits else "a list of shares from 0 to 1, or of steps, one per joint block"
    return "" if (is_number if kind is float else type(value) is kind) else _EXPECTED[kind]


def _out_of_range(recipe: Recipe) -> Iterator[str]:
    for name, (least, most) in _LIMITS.items():
        if not (least <= getattr(recipe, name) <= most and getattr(recipe, name) < inf):
            at_most = f", at most {most:g}" if most < inf else ""
            yield f"{name} is {getattr(recipe, name):g}, expected {least:g} or more{at_most}"
    for name in _ABOVE_ZERO:
        if not 0 < getattr(recipe, name) < inf:
            yield f"{name} is {getattr(recipe, name):g}, expected more than 0"
    for name in _BELOW_ONE:
        if not 0 <= getattr(recipe, name) < 1:
            yield f"{name} is {getattr(recipe, name):g}, expected 0 or more and less than 1"
    if recipe.scale_min > recipe.scale_max:
        yield f"scale_min {recipe.scale_min:g} is above scale_max {recipe.scale_max:g}"
