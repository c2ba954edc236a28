"""Strict reading of content tables: unknown keys, missing keys and wrong types are errors with a suggestion."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from luma_cli.catalogue.near import nearest
from luma_cli.errors import BadCard

_TYPE_NAMES = {str: "text", bool: "true or false", list: "a list of texts", dict: "a table"}


def require(where: str, table: Any, keys: Mapping[str, type], required: Sequence[str]) -> dict[str, Any]:
    """`table` as a new dict, each key known and of its type. Raises BadCard naming `where`, the key and a near one."""
    if not isinstance(table, dict):
        raise BadCard(f"{where}: expected a table with {', '.join(required)}")
    for key, value in table.items():
        one_of(where, "key", key, keys)
        if not _is(value, keys[key]):
            raise BadCard(f"{where}: {key} is {value!r}, expected {_TYPE_NAMES[keys[key]]}")
    for key in required:
        if key not in table:
            raise BadCard(f"{where}: {key} is missing; add {key} = ... ({_TYPE_NAMES[keys[key]]})")
    return dict(table)


def _is(value: Any, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)


def one_of(where: str, what: str, value: str, known: Collection[str]) -> str:
    """`value` itself when known. Raises BadCard with the nearest known spelling."""
    if value in known:
        return value
    near = nearest(value, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
    raise BadCard(f"{where}: unknown {what} {value!r}; {hint}")
