"""Records as the rows that keep them, and back: one codec for profiles, runs, evaluations and imported results.

JSON columns are ASCII, keys sorted, no blanks: equal content has equal text and an equal hash on every machine. NaN and
infinity never reach the database: SQLite would keep NaN as NULL, which reads as `not measured`.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, cast

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import LumaError, StoreError
from luma_cli.store.records import Configuration, Environment, Metric, Profile, RunRecord

Row = dict[str, Any]
Record = TypeVar("Record")

# The unit of a metric of this name, as the views' column names promise.
UNITS: Mapping[str, frozenset[str]] = {
    "throughput": frozenset({"images/s"}),
    **dict.fromkeys(("latency_eager", "latency_cuda_graph"), frozenset({"ms"})),
    "energy": frozenset({"J", "J/image"}),
    **dict.fromkeys(("memory_allocated", "memory_reserved", "memory_device"), frozenset({"bytes"})),
    **{f"memory_{kind}_plateau": frozenset({"bytes"}) for kind in ("allocated", "reserved", "device")},
}
_INTEGER_FACTS = ("macs", "backbone_macs", "head_macs", "params", "backbone_params", "head_params", "l2")
_TEXT_FACTS = ("ffn", "tap")
# Columns of an attempt that repeat the median of a metric, so that many attempts are read fast.
_MEDIANS = {
    "throughput_images_per_second": "throughput",
    "latency_eager_p50_ms": "latency_eager",
    "memory_allocated_bytes": "memory_allocated",
    "memory_device_bytes": "memory_device",
    "energy_j_per_image": "energy",
}
_NOISY = ("throughput", "latency_eager", "energy")
_FLAG_NOTES = ("throttled", "shared")
# What the hash of an attempt covers besides its three parents and its metrics, in this order.
_ATTEMPT = (
    *("status", "reason", "batch", "facts", "notes", "started_at", "seconds"),
    *("plan", "device_index", "device_uuid"),
)
_METRIC = ("name", "unit", "median", "ci_low", "ci_high", "p90", "n", "noisy")
# Columns of other tables that a run is read with, and its own that its hash leaves out.
RUN_PARENTS = frozenset({"identity", "provenance", "environment_hash", "provenance_hash"})
_RUN_UNHASHED = RUN_PARENTS | {"run_key", "hash", "environment_id", "provenance_id"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for an attempt and what ran it: sweep, index of the device on its machine and the device's UUID."""

    plan: str = ""
    device_index: int | None = None
    device_uuid: str = ""


UNKNOWN = Origin()


@dataclass(frozen=True, slots=True)
class ProfileRows:
    """The rows of one attempt, without the integer keys that the database gives. parents: by table."""

    parents: Mapping[str, Row]
    attempt: Row
    detail: Row
    metrics: tuple[Row, ...]
    samples: Mapping[str, bytes]


def text(value: object) -> str:
    """`value` as text that UTF-8 can hold: undecodable bytes of file names appear escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def finite_number(value: float | None, where: str) -> float | None:
    """`value` as SQLite gives it back. Raises StoreError, naming `where`, unless it is finite or None."""
    if value is None:
        return None
    if not math.isfinite(value):
        raise StoreError(f"{where} is {value}, expected a finite number or none; nothing was kept")
    return float(value) + 0.0  # -0.0 and 0.0 are the same row


def canonical(value: Any, what: str) -> str:
    """`value` as JSON text in the one spelling that is hashed and stored. Raises StoreError naming `what`."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{what} cannot be kept: {error}; expected text, finite numbers, lists and tables") from error


def sha256(content: str) -> str:
    """Hex SHA-256 of ASCII text."""
    return hashlib.sha256(content.encode("ascii")).hexdigest()


def columns(record: Any, where: str = "") -> Row:
    """The texts, numbers and flags among the fields of a dataclass as columns; lists, dicts and records are left out.

    Raises StoreError for a number that is not finite; its name follows `where`.
    """
    row: Row = {}
    of: Callable[..., object] = type(record)
    for name, kind in _fields(of):
        if write := _WRITERS.get(kind):
            value = getattr(record, name)
            row[name] = None if value is None else write(value, where + name)
    return row


def record_of(kind: Callable[..., Record], row: Mapping[str, Any], **rest: Any) -> Record:
    """The dataclass `kind` from the columns of `row` that are its fields, JSON parsed, and from `rest`."""
    kept = {name: _READERS[of](row[name]) if of in _READERS else row[name] for name, of in _fields(kind) if name in row}
    return kind(**{**kept, **rest})


@cache
def _fields(kind: Callable[..., object]) -> tuple[tuple[str, str], ...]:
    """Name and type of each field; types are texts here, by the __future__ import in `records`."""
    return tuple((field.name, str(field.type).removesuffix(" | None")) for field in fields(cast(Any, kind)))


_WRITERS: Mapping[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("str", "Status", "RunStatus"), lambda value, _: text(value)),
    "int": lambda value, _: value,
    "bool": lambda value, _: int(value),
    "float": finite_number,
}
_READERS: Mapping[str, Callable[[Any], Any]] = {"dict[str, Any]": json.loads, "bool": bool}


def profile_rows(profile: Profile, origin: Origin, saved_unix_seconds: float) -> ProfileRows:
    """Rows of `profile`, whose numbers must be finite. Raises StoreError for what JSON or the columns cannot hold."""
    parents = {"configuration": _configuration_row(profile.configuration), **parent_rows(profile.environment)}
    metrics = tuple(_metric_row(name, metric) for name, metric in sorted(profile.metrics.items()))
    samples = {
        name: struct.pack(f"<{len(metric.samples)}d", *metric.samples)
        for name, metric in profile.metrics.items()
        if metric.samples
    }
    detail = {"facts": canonical(profile.facts, "facts"), "notes": canonical(profile.notes, "notes")}
    attempt = _attempt_row(profile, origin, saved_unix_seconds, {row["name"]: row for row in metrics})
    content = [
        [parents[table]["hash"] for table in ("configuration", "environment", "provenance")],
        [{**attempt, **detail}[column] for column in _ATTEMPT],
        [[row[column] for column in _METRIC] for row in metrics],
        {name: hashlib.sha256(blob).hexdigest() for name, blob in samples.items()},
    ]
    attempt["hash"] = sha256(canonical(content, "attempt"))
    return ProfileRows(parents, attempt, detail, metrics, samples)


def parent_rows(environment: Environment) -> dict[str, Row]:
    """The rows of the tables `environment` and `provenance`."""
    identity = canonical(environment.identity, "environment.identity")
    provenance = canonical(cleaned(environment.provenance, "provenance")[0], "environment.provenance")
    device_name = text(environment.identity.get("device_name", ""))
    return {
        "environment": {"hash": sha256(identity), "device_name": device_name, "identity": identity},
        "provenance": {"hash": sha256(provenance), "json": provenance},
    }


def _configuration_row(configuration: Configuration) -> Row:
    head = configuration.head
    # Options at their default are left out: a configuration from before they existed keeps its hash.
    content = canonical({**configuration.stored(), "head": head.identity()}, "configuration")
    plain = columns(configuration)
    del plain["train_memory"]  # in the JSON alone
    of_head = {"head": text(head.name), "queries": head.num_queries, "classes": head.num_classes, "l2": head.l2}
    return {"hash": sha256(content), **plain, **of_head, "json": content}


def _attempt_row(profile: Profile, origin: Origin, saved_unix_seconds: float, metrics: Mapping[str, Row]) -> Row:
    facts, notes = profile.facts, profile.notes
    device_uuid = origin.device_uuid or profile.environment.provenance.get("gpu_uuid") or ""
    return {
        **columns(profile),
        **columns(origin),
        "fingerprint": profile.fingerprint,
        "started_unix_seconds": unix_seconds(profile.started_at, saved_unix_seconds),
        "device_uuid": text(device_uuid),
        **{name: _whole(name, facts.get(name)) for name in _INTEGER_FACTS},
        **{name: None if facts.get(name) is None else text(facts[name]) for name in _TEXT_FACTS},
        "flops_complete": _flag(facts.get("flops_complete")),
        **{column: metrics[name]["median"] if name in metrics else None for column, name in _MEDIANS.items()},
        **{f"{name}_noisy": metrics[name]["noisy"] if name in metrics else None for name in _NOISY},
        **{name: _flag(notes.get(name)) for name in _FLAG_NOTES},
    }


def _metric_row(name: str, metric: Metric) -> Row:
    if name != metric.name:
        raise StoreError(f"metric {metric.name!r} is filed under {name!r}, expected its own name")
    if metric.unit not in UNITS.get(name, {metric.unit}):
        raise StoreError(f"metric {name} is in {metric.unit!r}, expected {' or '.join(sorted(UNITS[name]))}")
    return columns(metric)


def _whole(name: str, value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise StoreError(f"fact {name} is {value!r}, expected a whole number")
    return value


def _flag(value: object) -> int | None:
    return None if value is None else int(bool(value))


def unix_seconds(started_at: str, otherwise: float) -> float:
    """Seconds since 1970 of an ISO 8601 time, taken as UTC where it names no zone; `otherwise` where it is none."""
    try:
        started = datetime.fromisoformat(started_at)
        return (started if started.tzinfo else started.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return otherwise


def profile_of(row: Row, metrics: Mapping[str, Metric]) -> Profile:
    """The Profile of a row with JSON of configuration, identity and provenance. Raises StoreError if not understood."""
    try:
        values = json.loads(row["configuration"])
        configuration = Configuration(**{**values, "head": HeadConfig(**values["head"])})
    except (TypeError, ValueError, KeyError, LumaError) as error:
        raise StoreError(f"a stored configuration is not understood ({error}); see `luma db check`") from error
    return record_of(Profile, row, configuration=configuration, environment=_environment_of(row), metrics=dict(metrics))


def metric_of(row: Row, blob: bytes | None = None) -> Metric:
    """The Metric of a row, with its samples if their blob is given."""
    return record_of(Metric, row, samples=struct.unpack(f"<{len(blob) // 8}d", blob) if blob else ())


def _environment_of(row: Row) -> Environment:
    return Environment(json.loads(row["identity"]), json.loads(row["provenance"]))


def run_row(record: RunRecord, now: float, revision: int = 1) -> Row:
    """The row of `record` without keys and hash. Numbers in `facts` that are not finite become null and are listed."""
    known = record if math.isfinite(record.seconds) else replace(record, seconds=0.0)
    return {
        **columns(known, "run: "),
        "started_unix_seconds": unix_seconds(record.started_at, now),
        "revision": revision,
        "updated_unix_seconds": now + 0.0,
        "config": canonical(record.config, "the run's configuration"),
        "facts": facts_text(record.facts),
    }


def facts_text(facts: Mapping[str, object]) -> str:
    """`facts` of a run as JSON; a number that is not finite becomes null, and `not_finite` lists where."""
    kept, bad = cleaned(dict(facts), "facts")
    return canonical({**kept, "not_finite": bad} if bad else kept, "the run's facts")


def run_hash(row: Row) -> str:
    """Hex SHA-256 of all that `row` says and of its `environment_hash` and `provenance_hash`."""
    content = {name: value for name, value in row.items() if name not in _RUN_UNHASHED}
    return sha256(canonical([row["environment_hash"], row["provenance_hash"], content], "run"))


def run_of(row: Row) -> RunRecord:
    """The RunRecord of a row that also has `identity` and `provenance` as JSON."""
    return record_of(RunRecord, row, environment=_environment_of(row))


def finite(profile: Profile) -> Profile:
    """`profile` itself if every number in it is finite, else the profile that may be kept in its place.

    A metric, fact or duration that is not finite is left out, the reason names it, and `ok` becomes `failed`. In notes
    and provenance, which nobody ranks by, such a number becomes null, and the notes list where (`not_finite`).
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
        metrics={name: metric for name, metric in profile.metrics.items() if not _faults(metric)},
        notes={**notes, "not_finite": remarks} if remarks else notes,
        seconds=profile.seconds if math.isfinite(profile.seconds) else 0.0,
    )


def _faults(metric: Metric) -> list[str]:
    parts = [(part, getattr(metric, part)) for part in ("median", "ci_low", "ci_high", "p90")]
    faults = [part for part, value in parts if value is not None and not math.isfinite(value)]
    return faults if all(map(math.isfinite, metric.samples)) else [*faults, "samples"]


def cleaned(values: dict[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
    """`values` with null for each float that is not finite, at any depth, and the paths of those."""
    bad: list[str] = []

    def clean(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: clean(inner, f"{path}.{key}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner, f"{path}.{index}") for index, inner in enumerate(value)]
        if isinstance(value, float) and not math.isfinite(value):
            bad.append(path)
            return None
        return value

    kept = clean(values, where)
    return (kept, bad) if bad else (values, bad)
