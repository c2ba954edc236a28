"""Profiles as a CSV file, one row per attempt, with everything that identifies it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from luma_cli.store.records import Metric, Profile


def write_csv(profiles: Sequence[Profile], path: Path) -> None:
    """One row per attempt: fingerprint, configuration, identity, medians with intervals, the rest as JSON."""
    rows = [flat(profile) for profile in profiles]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def flat(profile: Profile) -> dict[str, Any]:
    """The profile as one row."""
    configuration = asdict(profile.configuration)
    head = configuration.pop("head")
    row: dict[str, Any] = {"fingerprint": profile.fingerprint, "status": profile.status, "reason": profile.reason}
    row |= {**configuration, **{f"head_{key}": value for key, value in head.items()}, "measured_batch": profile.batch}
    row |= {f"environment_{key}": value for key, value in profile.environment.identity.items()}
    row |= {key: value for key, value in profile.facts.items() if not isinstance(value, list)}
    for name, metric in profile.metrics.items():
        row |= columns_of(name, metric)
    row |= {"started_at": profile.started_at, "seconds": profile.seconds}
    private = {"host", "variables"}
    kept = {key: value for key, value in profile.environment.provenance.items() if key not in private}
    return row | {"provenance": json.dumps(kept), "notes": json.dumps(profile.notes)}


def columns_of(name: str, metric: Metric) -> dict[str, Any]:
    """A metric's columns, its unit in their names."""
    stem = f"{name}_{metric.unit.replace('/', '_per_')}"
    numbers = {"median": metric.median, "ci_low": metric.ci_low, "ci_high": metric.ci_high, "n": metric.n}
    if metric.p90 is not None:
        numbers["p90"] = metric.p90
    return {f"{stem}_{key}": value for key, value in numbers.items()}
