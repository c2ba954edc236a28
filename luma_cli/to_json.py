"""Any result as plain JSON values: one walker over dataclasses, with public names given once, in the class.

A field is written under its own name. `field(metadata={"json": "name"})` gives another one, `{"json": None}` leaves the
field out. Properties that belong to the answer are named in the class variable `JSON_ALSO`. A class whose JSON has
another shape than its fields defines `__json__` and returns values that are walked in their turn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import date
from enum import Enum
from pathlib import PurePath
from typing import Any


def to_json(value: Any) -> Any:
    """`value` as dicts, lists, strings, numbers, booleans and None.

    Numbers that are not finite become None, as JSON has none; arrays become lists. Raises TypeError for a value that
    has no JSON form, so that nothing is written as its `repr`.
    """
    if value is None or isinstance(value, str | bool | int):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(type(value), "__json__"):
        return to_json(value.__json__())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(getattr(value, attribute)) for name, attribute in _public(type(value))}
    if isinstance(value, Mapping):
        return {str(to_json(key)): to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(each) for each in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, Enum):
        return to_json(value.value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's arrays and scalars, without importing numpy
        return to_json(value.tolist())
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _public(kind: type) -> list[tuple[str, str]]:
    """Public name and attribute of each field and property that is written."""
    names = [(field.metadata.get("json", field.name), field.name) for field in dataclasses.fields(kind)]
    return [(name, attribute) for name, attribute in names if name is not None] + [
        (name, name) for name in getattr(kind, "JSON_ALSO", ())
    ]
