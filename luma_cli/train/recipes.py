"""Recipes by name or file, and changes to them from the command line. Imports no torch.

Shipped ones are the TOML files in `profiles/recipes/`; the format is told in docs/recipes.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_origin

from luma_cli import content
from luma_cli.catalogue.near import nearest
from luma_cli.errors import BadRecipe
from luma_cli.train.recipe import Recipe
from luma_cli.train.recipe_check import NAMES, TYPES, check, problems, refuse

__all__ = ["check", "default_recipe", "load_recipe", "recipe_names", "with_changes"]

_SUFFIX = ".toml"
_USUAL = "ade20k"  # of datasets without one of their own
SETTINGS = tuple(name for name in NAMES if name not in ("name", "source"))
_TRUTHS = {"true": True, "false": False}


def folder() -> Path:
    """Folder of the shipped recipes."""
    return content.root() / "profiles" / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, in alphabetical order."""
    return sorted(path.stem for path in folder().glob(f"*{_SUFFIX}"))


def default_recipe(dataset: str, head: str, known: Sequence[str]) -> str:
    """The name of the recipe for a dataset and a head; that of ADE20K where the dataset has none.

    >>> default_recipe("cityscapes", "eomt", ["ade20k", "cityscapes", "eomt-cityscapes"])
    'eomt-cityscapes'
    """
    own = dataset if dataset in known else _USUAL
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
        raise BadRecipe(f"{path}: {error}; docs/recipes.md tells the format") from error
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
    return f"unknown setting {name!r}; " + (f"did you mean {near[0]!r}?" if near else "docs/recipes.md lists them")


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
