"""A RunRecord as the row that keeps it, and back. The row's hash covers all that it says."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields

from luma_cli.store import rows
from luma_cli.store.finite import cleaned
from luma_cli.store.records import Environment
from luma_cli.store.rows import Row
from luma_cli.store.run_records import RunRecord

_TEXTS = (
    *("run_id", "status", "reason", "backbone", "timm_name", "pretraining", "weights", "head", "dataset", "recipe"),
    *("started_at", "folder"),
)
_WHOLES = ("resolution", "seed", "num_steps", "batch", "num_processes", "step")
_UNHASHED = frozenset({"run_key", "hash", "environment_id", "provenance_id"})


def encode(record: RunRecord, now: float, revision: int = 1) -> Row:
    """The row of `record` without keys and hash. Numbers in `facts` that are not finite become null and are listed."""
    return {
        **{name: rows.text(getattr(record, name)) for name in _TEXTS},
        **{name: getattr(record, name) for name in _WHOLES},
        "seconds": record.seconds + 0.0 if math.isfinite(record.seconds) else 0.0,
        "started_unix_seconds": rows.unix_seconds(record.started_at, now),
        "revision": revision,
        "updated_unix_seconds": now + 0.0,
        "config": rows.canonical(record.config, "the run's configuration"),
        "facts": facts_text(record.facts),
    }


def facts_text(facts: Mapping[str, object]) -> str:
    """`facts` as JSON; what is no finite number is null, and `not_finite` says where."""
    kept, bad = cleaned(dict(facts), "facts")
    return rows.canonical({**kept, "not_finite": bad} if bad else kept, "the run's facts")


def parents(environment: Environment) -> dict[str, Row]:
    """The rows of the tables `environment` and `provenance`."""
    identity = rows.canonical(environment.identity, "environment.identity")
    provenance = rows.canonical(cleaned(environment.provenance, "provenance")[0], "environment.provenance")
    device_name = rows.text(environment.identity.get("device_name", ""))
    return {
        "environment": {"hash": rows.sha256(identity), "device_name": device_name, "identity": identity},
        "provenance": {"hash": rows.sha256(provenance), "json": provenance},
    }


def hash_of(row: Row, environment_hash: str, provenance_hash: str) -> str:
    """Hex SHA-256 of all that `row` says and of its parents' hashes."""
    content = {name: value for name, value in row.items() if name not in _UNHASHED}
    return rows.sha256(rows.canonical([environment_hash, provenance_hash, content], "run"))


def decode(row: Row) -> RunRecord:
    """The RunRecord of a row that also has `identity` and `provenance` as JSON."""
    values = {field.name: row[field.name] for field in fields(RunRecord) if field.name in row}
    return RunRecord(
        **{**values, "config": json.loads(row["config"]), "facts": json.loads(row["facts"])},
        environment=Environment(json.loads(row["identity"]), json.loads(row["provenance"])),
    )
