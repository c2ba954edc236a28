"""Strict reading of content tables: unknown keys, missing keys and wrong types are errors with a suggestion."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from luma_cli.errors import BadCard

_TYPE_NAMES = {str: "text", bool: "true or false", list: "a list of texts", dict: "a table"}


def require(where: str, table: Any, keys: Mapping[str, type], required: Sequence[str]) -> dict[str, Any]:
    """`table` as a new dict, each key known and of its type. Raises BadCard naming `where`, the key and a near one."""
    if not isinstance(table, dict):
        raise BadCard(f"{where}: expected a table with {', '.join(required)}")
    for key, value in table.items():
        one_of(where, "key", key, keys)
        kind = keys[key]
        texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not (texts if kind is list else isinstance(value, kind)):
            raise BadCard(f"{where}: {key} is {value!r}, expected {_TYPE_NAMES[kind]}")
    for key in required:
        if key not in table:
            raise BadCard(f"{where}: {key} is missing; add {key} = ... ({_TYPE_NAMES[keys[key]]})")
    return dict(table)


def one_of(where: str, what: str, value: str, known: Collection[str]) -> str:
    """`value` itself when known. Raises BadCard with the nearest known spelling."""
    if value in known:
        return value
    near = nearest(value, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
    raise BadCard(f"{where}: unknown {what} {value!r}; {hint}")


# General fuzzy matching suggests the wrong name (`gcvit_base` for `vit_b`), because names of backbones differ by short
# parts. So each part must find its own counterpart, and the first part, the family, counts double.
_PARTS = re.compile(r"[_.\-/: ]+")
_FAR = 0.4
_LONGEST = 100  # characters of a spelling that is compared; the longest name of timm has 60


def distance(left: str, right: str) -> int:
    """Edits (insert, delete, replace, swap of neighbours) that turn `left` into `right`.

    >>> distance("swni_t", "swin_t")
    1
    """
    before, row = [0] * (len(right) + 1), list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        last, row = row, [i]
        for j, b in enumerate(right, 1):
            best = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                best = min(best, before[j - 2] + 1)
            row.append(best)
        before = last
    return row[-1]


def nearest(spelling: str, known: Iterable[str], limit: int = 5) -> list[str]:
    """At most `limit` of `known` that are near to `spelling`, nearest first, ties in alphabetical order.

    What follows a slash may be the whole name (`timm/vit_base_patch16_224`). None for one of over 100 characters.
    """
    if len(spelling) > _LONGEST:
        return []
    whole = spelling.lower()
    wanted = {whole, whole.rpartition("/")[2] or whole}
    scored = ((min(_remoteness(text, candidate.lower()) for text in wanted), candidate) for candidate in known)
    return [candidate for score, candidate in sorted(pair for pair in scored if pair[0] <= _FAR)][:limit]


def _remoteness(wanted: str, candidate: str) -> float:
    """0 when equal, 1 when nothing is shared: half from the whole spelling, half from its parts."""
    parts, others = _PARTS.split(wanted), _PARTS.split(candidate)
    apart = [min(_part_remoteness(part, other) for other in others) for part in parts]
    apart[0] = _part_remoteness(parts[0], others[0])
    by_part = (sum(apart) + apart[0]) / (len(apart) + 1)
    longer = max(len(wanted), len(candidate), 1)
    if 0.5 * by_part + 0.5 * abs(len(wanted) - len(candidate)) / longer > _FAR:
        return 1.0
    return 0.5 * by_part + 0.5 * distance(wanted, candidate) / longer


@lru_cache(maxsize=1 << 14)
def _part_remoteness(part: str, other: str) -> float:
    """Of two parts alone; remembered, because timm's names share most of theirs."""
    return distance(part, other) / max(len(part), len(other), 1)
