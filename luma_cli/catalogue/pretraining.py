"""Pretraining objectives, `models/pretraining.toml`: what they are, and which one a timm tag belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from luma_cli import files
from luma_cli.catalogue.reading import one_of, require
from luma_cli.errors import BadCard

_KEYS = {"title": str, "data": str, "dense": bool, "source": str, "aliases": list, "match": list}


@dataclass(frozen=True, slots=True)
class Objective:
    """One way to pretrain.

    dense: whether the objective acts on patches or pixels rather than on whole images. aliases: shorter spellings, e.g.
    `in1k`. match: patterns of timm names (`architecture.tag`) pretrained this way.
    """

    name: str
    title: str
    data: str
    dense: bool
    source: str
    aliases: tuple[str, ...] = ()
    match: tuple[str, ...] = ()


@cache
def load_objectives() -> Mapping[str, Objective]:
    """Every objective by name, in file order."""
    return read_objectives(files.root() / "models" / "pretraining.toml")


def read_objectives(path: Path) -> dict[str, Objective]:
    """The objectives in the file at `path`. Raises BadCard on an unknown key or a spelling used twice."""
    objectives = {}
    for name, table in files.read_toml(path).items():
        values = require(f"{path}: [{name}]", table, _KEYS, ("title", "data", "dense", "source"))
        lists: dict[str, Any] = {key: tuple(values.pop(key, ())) for key in ("aliases", "match")}
        objectives[name] = Objective(name, **values, **lists)
    seen = set(objectives)
    for objective in objectives.values():
        for alias in objective.aliases:
            if alias in seen:
                raise BadCard(f"{path}: [{objective.name}] alias {alias!r} is used twice; give each objective its own")
            seen.add(alias)
    return objectives


def objective_named(spelling: str) -> Objective | None:
    """The objective with this name or alias, None when there is none."""
    objectives = load_objectives()
    return objectives.get(spelling) or next((o for o in objectives.values() if spelling in o.aliases), None)


@cache
def objective_of(timm_name: str) -> str:
    """Name of the objective whose patterns match `architecture.tag`, first in file order; empty when none does."""
    for objective in load_objectives().values():
        if any(fnmatchcase(timm_name, pattern) for pattern in objective.match):
            return objective.name
    return ""


def check_objective(where: str, name: str) -> str:
    """`name` itself. Raises BadCard with a suggestion when it is no objective."""
    return one_of(where, "objective", name, load_objectives())
