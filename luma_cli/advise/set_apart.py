"""Which measured rows a front does not mix with its own, and why: another compile mode, number format, environment."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields

from luma_cli.speed.bench import Bench
from luma_cli.speed.measured import Conditions, Measured

_TITLES = {
    "channels_last": "channels-last",
    "num_queries": "queries",
    "num_classes": "classes",
    "prefix": "prefix tokens",
}
_MOST_ENVIRONMENT_DETAILS = 2


def set_apart(measured: Sequence[Measured], bench: Bench) -> list[str]:
    """One line for each reason, with the number of rows of this device that it sets apart; most rows first.

    Rows that the bench keeps as evidence inform predictions with an offset of their own; all others inform nothing.
    """
    used, related = set(map(id, bench.rows)), set(map(id, bench.related))
    reasons: Counter[tuple[str, str]] = Counter()
    for row in measured:
        if bench.conditions is None or row.conditions.device_name != bench.device_name or id(row) in used:
            continue
        what = "are corrected by an offset" if id(row) in related else "are left out"
        reasons[_reason(row, bench.conditions), what] += 1
    ordered = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    return [
        f"{count} measured {'row' if count == 1 else 'rows'} {why}: {_verb(what, count)}"
        for (why, what), count in ordered
    ]


def _verb(what: str, count: int) -> str:
    return what.replace("are ", "is ", 1) if count == 1 else what


def _reason(row: Measured, here: Conditions) -> str:
    if row.flags:
        return f"flagged {' and '.join(row.flags)}"
    different = list(_differences(row.conditions, here))
    return f"with {', '.join(different)}" if different else "repeated since"


def _differences(theirs: Conditions, here: Conditions) -> Iterator[str]:
    for field in fields(Conditions):
        mine, other = getattr(here, field.name), getattr(theirs, field.name)
        if mine == other or field.name == "device":
            continue
        if field.name == "environment":
            yield _environment(json.loads(other), json.loads(mine))
        else:
            yield f"{_TITLES.get(field.name, field.name)} {other} (here {mine})"


def _environment(theirs: dict[str, object], here: dict[str, object]) -> str:
    """What differs between two environments, shortly."""
    names = sorted(name for name in theirs.keys() | here.keys() if theirs.get(name) != here.get(name))
    said = [
        f"{name} {theirs.get(name, '-')} (here {here.get(name, '-')})" for name in names[:_MOST_ENVIRONMENT_DETAILS]
    ]
    more = len(names) - _MOST_ENVIRONMENT_DETAILS
    return ", ".join(["another environment: " + ", ".join(said), *([f"{more} more differences"] if more > 0 else [])])
