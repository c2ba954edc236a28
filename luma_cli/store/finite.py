"""NaN and infinity never reach the database: SQLite would keep NaN as NULL, which reads as `not measured`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from luma_cli.store.records import Environment, Metric, Profile


def finite(profile: Profile) -> Profile:
    """`profile` itself if every number in it is finite, else the profile that may be kept in its place.

    A metric, fact or duration that is not finite is left out, the reason says which, and `ok` becomes `failed`. In
    notes and provenance, which nobody ranks by, such a number becomes null and the notes list where (`not_finite`).
    """
    complaints = [f"{name}.{part}" for name, metric in sorted(profile.metrics.items()) for part in _faults(metric)]
    facts, bad_facts = cleaned(profile.facts, "facts")
    notes, bad_notes = cleaned(profile.notes, "notes")
    provenance, bad_provenance = cleaned(profile.environment.provenance, "provenance")
    complaints += bad_facts + ([] if math.isfinite(profile.seconds) else ["seconds"])
    remarks = bad_notes + bad_provenance
    if not complaints and not remarks:
        return profile
    return replace(
        profile,
        environment=Environment(profile.environment.identity, provenance),
        status="failed" if complaints and profile.status == "ok" else profile.status,
        reason="; ".join(filter(None, [profile.reason, *(f"{where} is not a finite number" for where in complaints)])),
        facts=facts,
        metrics={name: metric for name, metric in profile.metrics.items() if not any(_faults(metric))},
        notes={**notes, "not_finite": remarks} if remarks else notes,
        seconds=profile.seconds if math.isfinite(profile.seconds) else 0.0,
    )


def cleaned(values: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """`values` with null for each float that is not finite, at any depth, and the paths of those."""
    paths = list(_paths(values, where))
    return (_nulled(values), paths) if paths else (values, [])


def _faults(metric: Metric) -> Iterator[str]:
    for part in ("median", "ci_low", "ci_high", "p90"):
        value = getattr(metric, part)
        if value is not None and not math.isfinite(value):
            yield part
    if not all(map(math.isfinite, metric.samples)):
        yield "samples"


def _paths(value: Any, where: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield where
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _paths(inner, f"{where}.{index}")


def _nulled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nulled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_nulled(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
