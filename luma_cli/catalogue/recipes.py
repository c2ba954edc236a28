"""Recipes by name or file, and changes to them from the command line. Imports no torch.

Shipped ones are the TOML files in `profiles/recipes/`; the format is told in docs/reference/recipes.md.

How training images are changed at random: the ranges of EoMT's semantic recipe (arXiv 2503.19108). No torch.

Source of the numbers: https://github.com/tue-mps/eomt, datasets/transforms.py.

The recipe of a fine-tuning: every number that decides what is learnt, with where it comes from. Imports no torch.

The defaults are EoMT's for ADE20K with DINOv2 (arXiv 2503.19108, section 4.1 and its released code), which LUMA is
taken to share (arXiv 2607.00687 states no other).

Whether a recipe makes sense, before anything expensive starts: every problem at once. Imports no torch.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from luma_cli import files
from luma_cli.catalogue.reading import nearest
from luma_cli.errors import BadRecipe


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


Dtype = Literal["auto", "bf16", "fp16", "fp32"]
BatchNorm = Literal["auto", "sync", "train", "frozen"]
_USUAL_AUGMENTATION = Augmentation()


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a training. Steps are those of the optimiser; `lr` is that of the head and of the last block.

    epochs or steps: one of them is 0 and the other says how long. batch: images per step, over all processes and
    micro-batches. layer_decay: factor of `lr` per block from the last, 1 for none; deep nets get it over 24 blocks.
    warmup_head_steps, then warmup_backbone_steps: the backbone stays as it is during the first. clip_norm: of the whole
    gradient, 0 for none. anneal_starts, anneal_ends: of an EoMT head, shares of all steps per joint block; empty for
    equal phases. ema_decay: 0 for none. batch_norm: `auto` is sync over several GPUs, train from 8 images per process
    and frozen below. dtype `auto`: bf16 where the GPU has it, else fp32. eval_every_epochs: 0 for at the end alone.
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
    layer_decay: float = 0.8
    warmup_head_steps: int = 500
    warmup_backbone_steps: int = 1000
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
    ema_decay: float = 0.0
    batch_norm: BatchNorm = "auto"
    dtype: Dtype = "auto"
    freeze_backbone: bool = False
    eval_every_epochs: float = 1.0
    brightness: float = _USUAL_AUGMENTATION.brightness
    contrast: float = _USUAL_AUGMENTATION.contrast
    saturation: float = _USUAL_AUGMENTATION.saturation
    hue: float = _USUAL_AUGMENTATION.hue
    colour_chance: float = _USUAL_AUGMENTATION.colour_chance
    flip_chance: float = _USUAL_AUGMENTATION.flip_chance
    scale_min: float = _USUAL_AUGMENTATION.scale_min
    scale_max: float = _USUAL_AUGMENTATION.scale_max

    def augmentation(self) -> Augmentation:
        """The part that says how images are changed."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})


TYPES = get_type_hints(Recipe)
NAMES = tuple(field.name for field in fields(Recipe))

# The least and the greatest value that makes sense; None for no limit.
_LIMITS: dict[str, tuple[float, float | None]] = {
    "epochs": (0, None),
    "steps": (0, None),
    "batch": (1, None),
    "weight_decay": (0, None),
    "layer_decay": (1e-3, 1),
    "warmup_head_steps": (0, None),
    "warmup_backbone_steps": (0, None),
    "poly_power": (0, None),
    "clip_norm": (0, None),
    "bce_weight": (0, None),
    "dice_weight": (0, None),
    "class_weight": (0, None),
    "no_object_weight": (0, None),
    "num_points": (1, None),
    "oversample_ratio": (1, None),
    "importance_ratio": (0, 1),
    "eval_every_epochs": (0, None),
    "brightness": (0, 1),
    "contrast": (0, 1),
    "saturation": (0, 1),
    "hue": (0, 0.5),
    "colour_chance": (0, 1),
    "flip_chance": (0, 1),
}
_ABOVE_ZERO = ("lr", "eps", "scale_min", "scale_max")
_BELOW_ONE = ("beta1", "beta2", "ema_decay")


def check(recipe: Recipe, num_steps: int, num_joint: int = 0) -> None:
    """Raise BadRecipe with every problem of a training of `num_steps` optimiser steps.

    num_joint: joint blocks of an EoMT head; 0 for heads that have none, whose annealing is not looked at.
    """
    refuse(recipe.name, [*problems(recipe), *_run_problems(recipe, num_steps, num_joint)])


def refuse(name: str, found: list[str]) -> None:
    """Raise BadRecipe, in one line, where something was found."""
    if found:
        raise BadRecipe(f"recipe {name}: {'; '.join(found)}")


def problems(recipe: Recipe) -> list[str]:
    """What is wrong with a recipe, whatever it is used for: one short text each."""
    wrong_types = [name for name in NAMES if not _fits(getattr(recipe, name), name)]
    found = [f"{name} is {getattr(recipe, name)!r}, expected {expected(name)}" for name in wrong_types]
    if wrong_types:
        return found
    return [*_length_problems(recipe), *_range_problems(recipe), *_annealing_problems(recipe)]


def _fits(value: object, name: str) -> bool:
    """Whether `value` has the type of the setting `name`; a whole number may stand for any number."""
    kind = TYPES[name]
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_number(entry) for entry in value)
    return _is_number(value) if kind is float else type(value) is kind


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def expected(name: str) -> str:
    """In words, what the setting `name` takes."""
    kind = TYPES[name]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        return "a list of shares from 0 to 1, one per joint block"
    return {float: "a number", int: "a whole number", bool: "true or false", str: "text"}[kind]


def _length_problems(recipe: Recipe) -> Iterator[str]:
    if recipe.epochs and recipe.steps:
        yield f"both epochs ({recipe.epochs:g}) and steps ({recipe.steps}) are set; set one of them to 0"
    if not recipe.epochs and not recipe.steps:
        yield "neither epochs nor steps is set; type --epochs 31 or --steps 40000"


def _range_problems(recipe: Recipe) -> Iterator[str]:
    for name, (least, most) in _LIMITS.items():
        value = getattr(recipe, name)
        if not (value >= least and (most is None or value <= most) and value < float("inf")):
            yield f"{name} is {value:g}, expected {least:g} or more" + (f", at most {most:g}" if most else "")
    for name in _ABOVE_ZERO:
        if not 0 < getattr(recipe, name) < float("inf"):
            yield f"{name} is {getattr(recipe, name):g}, expected more than 0"
    for name in _BELOW_ONE:
        if not 0 <= getattr(recipe, name) < 1:
            yield f"{name} is {getattr(recipe, name):g}, expected 0 or more and less than 1"
    if recipe.scale_min > recipe.scale_max:
        yield f"scale_min {recipe.scale_min:g} is above scale_max {recipe.scale_max:g}"


def _annealing_problems(recipe: Recipe) -> Iterator[str]:
    starts, ends = recipe.anneal_starts, recipe.anneal_ends
    if len(starts) != len(ends):
        yield f"{len(starts)} anneal_starts but {len(ends)} anneal_ends, expected one of each per joint block"
        return
    for start, end in zip(starts, ends, strict=True):
        if not 0 <= start <= end <= 1:
            yield f"masks are annealed from {start:g} to {end:g}, expected shares with 0 <= start <= end <= 1"


def _run_problems(recipe: Recipe, num_steps: int, num_joint: int) -> Iterator[str]:
    warmup = recipe.warmup_head_steps + recipe.warmup_backbone_steps
    if warmup >= num_steps:
        head, backbone = _shorter_warmups(recipe, num_steps)
        yield (
            f"the warm-ups take {recipe.warmup_head_steps} + {recipe.warmup_backbone_steps} steps, but the training "
            f"has {num_steps}; type --set warmup_head_steps={head} --set warmup_backbone_steps={backbone}, or add steps"
        )
    if num_joint and recipe.anneal_starts and len(recipe.anneal_starts) != num_joint:
        yield (
            f"{len(recipe.anneal_starts)} anneal_starts and anneal_ends, but the head has {num_joint} joint blocks; "
            "give one of each per block, or leave both empty for equal phases"
        )


def _shorter_warmups(recipe: Recipe, num_steps: int) -> tuple[int, int]:
    """Warm-ups in the recipe's proportion that take a tenth of the training."""
    warmup = recipe.warmup_head_steps + recipe.warmup_backbone_steps
    total = num_steps // 10
    head = total * recipe.warmup_head_steps // warmup if warmup else 0
    return head, total - head


__all__ = ["check", "default_recipe", "load_recipe", "recipe_names", "with_changes"]

_SUFFIX = ".toml"
_USUAL_RECIPE = "ade20k"  # of datasets without one of their own
SETTINGS = tuple(name for name in NAMES if name not in ("name", "source"))
_TRUTHS = {"true": True, "false": False}


def folder() -> Path:
    """Folder of the shipped recipes."""
    return files.root() / "profiles" / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, in alphabetical order."""
    return sorted(path.stem for path in folder().glob(f"*{_SUFFIX}"))


def default_recipe(dataset: str, head: str, known: Sequence[str]) -> str:
    """The name of the recipe for a dataset and a head; that of ADE20K where the dataset has none.

    >>> default_recipe("cityscapes", "eomt", ["ade20k", "cityscapes", "eomt-cityscapes"])
    'eomt-cityscapes'
    """
    own = dataset if dataset in known else _USUAL_RECIPE
    return f"eomt-{own}" if head == "eomt" and f"eomt-{own}" in known else own


def load_recipe(name_or_file: str) -> Recipe:
    """The shipped recipe of this name, or the one in a TOML file, which is named by its file.

    Raises BadRecipe with everything that is wrong with it.

    >>> load_recipe("cityscapes").epochs
    107.0
    """
    path = folder() / f"{name_or_file}{_SUFFIX}" if name_or_file in recipe_names() else Path(name_or_file).expanduser()
    if not path.is_file():
        raise BadRecipe(_unknown(name_or_file))
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadRecipe(f"{path}: {error}; docs/reference/recipes.md tells the format") from error
    return _recipe(path.stem, str(path), values)


def _unknown(name: str) -> str:
    known = ", ".join(recipe_names())
    if name.endswith(_SUFFIX) or "/" in name:
        return f"there is no recipe file {name!r}; give a TOML file or one of {known}"
    near = nearest(name, recipe_names(), 1)
    return f"unknown recipe {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"give one of {known}, or a file")


def _recipe(name: str, where: str, values: Mapping[str, Any]) -> Recipe:
    """The recipe with these values, its defaults where they say nothing: length apart, which a file may say either way.

    Raises BadRecipe.
    """
    found = [_unknown_setting(key) for key in values if key not in NAMES]
    known = {key: _tuples(value) for key, value in values.items() if key in NAMES}
    if known.get("name", name) != name:
        found.append(f"name is {known['name']!r}, expected {name!r}, the file's own; leave it out")
    recipe = _with(Recipe(name=name, source=""), {**known, "name": name})
    refuse(where, found + problems(recipe))
    return recipe


def _with(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values; who says epochs and not steps means no steps, and the other way round."""
    unsaid = {"epochs": {"steps": 0}, "steps": {"epochs": 0}}
    said = [name for name in unsaid if name in values]
    said_so = {name: _number(name, value) for name, value in values.items()}
    return replace(recipe, **{**(unsaid[said[0]] if len(said) == 1 else {}), **said_so})


def _number(name: str, value: Any) -> Any:
    """A whole number as a float where the setting is one, so that equal recipes are written alike."""
    return float(value) if TYPES[name] is float and type(value) is int else value


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
            found.append(f"{change!r} is no change; type --set {name or 'lr'}=VALUE")
        elif name not in SETTINGS:
            found.append(_unknown_setting(name))
        else:
            values[name] = _value(name, text)
    changed = _with(recipe, values)
    refuse(recipe.name, found + problems(changed))
    return changed, different(recipe, changed)


def different(recipe: Recipe, changed: Recipe) -> tuple[str, ...]:
    """Names of the settings in which two recipes differ."""
    return tuple(name for name in SETTINGS if getattr(recipe, name) != getattr(changed, name))


def _unknown_setting(name: str) -> str:
    near = nearest(name, SETTINGS, 1)
    return f"unknown setting {name!r}; " + (
        f"did you mean {near[0]!r}?" if near else "docs/reference/recipes.md lists them"
    )


def _value(name: str, text: str) -> Any:
    """`text` as the type of the setting `name`; what cannot be read so stays text, which the check then refuses."""
    kind = TYPES[name]
    try:
        if get_origin(kind) is tuple:
            return tuple(float(part) for part in text.strip("[]() ").split(",") if part.strip())
        if get_origin(kind) is Literal:
            return text
        return _TRUTHS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        return text


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
