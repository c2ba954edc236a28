"""Whether a recipe makes sense, before anything expensive starts: every problem at once. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Literal, get_args, get_origin, get_type_hints

from luma_cli.errors import BadRecipe
from luma_cli.train.recipe import Recipe

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
