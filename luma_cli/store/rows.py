"""A Profile as the rows that keep it, and back.

JSON columns are ASCII, keys sorted, no blanks: equal content is equal text and has an equal hash on every machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from sys import byteorder
from typing import Any

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import LumaError, StoreError
from luma_cli.store.records import Configuration, Environment, Metric, Profile, RunRecord

Row = dict[str, Any]

# What a metric of this name is measured in, as the views' column names promise.
UNITS: Mapping[str, frozenset[str]] = {
    "throughput": frozenset({"images/s"}),
    "latency_eager": frozenset({"ms"}),
    "latency_cuda_graph": frozenset({"ms"}),
    "energy": frozenset({"J", "J/image"}),
    **{
        f"memory_{kind}{batch}": frozenset({"bytes"})
        for kind in ("allocated", "reserved", "device")
        for batch in ("", "_plateau")
    },
}
_INTEGER_FACTS = ("macs", "backbone_macs", "head_macs", "params", "backbone_params", "head_params", "l2")
_TEXT_FACTS = ("ffn", "tap")
# Columns of an attempt that repeat the median of a metric, and whether it settled.
_MEDIANS = {
    "throughput_images_per_second": "throughput",
    "latency_eager_p50_ms": "latency_eager",
    "memory_allocated_bytes": "memory_allocated",
    "memory_device_bytes": "memory_device",
    "energy_j_per_image": "energy",
}
_NOISY = ("throughput", "latency_eager", "energy")
_FLAG_NOTES = ("throttled", "shared")
_LABELS = (
    *("backbone", "timm_name", "family", "pretraining", "weights", "dtype", "attention", "compile"),
    *("channels_last", "device", "part", "backbone_hash", "tag"),
)
# What the hash of an attempt covers besides its three parents and its metrics.
_ATTEMPT = (
    "status",
    "reason",
    "batch",
    "facts",
    "notes",
    "started_at",
    "seconds",
    "plan",
    "device_index",
    "device_uuid",
)
_METRIC = ("name", "unit", "median", "ci_low", "ci_high", "p90", "n", "noisy")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asked for an attempt and what ran it: sweep, index of the device on its machine and the device's UUID."""

    plan: str = ""
    device_index: int | None = None
    device_uuid: str = ""


UNKNOWN = Origin()


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one attempt, without the integer keys that only a database can give."""

    environment: Row
    provenance: Row
    configuration: Row
    attempt: Row
    detail: Row
    metrics: tuple[Row, ...]
    samples: Mapping[str, bytes]


def profile_rows(profile: Profile, origin: Origin, saved_unix_seconds: float) -> Rows:
    """Rows of `profile`, whose numbers must be finite. Raises StoreError for what JSON or the columns cannot hold."""
    identity = canonical(profile.environment.identity, "environment.identity")
    provenance = canonical(profile.environment.provenance, "environment.provenance")
    configuration = _configuration_row(profile.configuration)
    metrics = tuple(_metric_row(name, metric) for name, metric in sorted(profile.metrics.items()))
    samples = {name: pack(metric.samples) for name, metric in profile.metrics.items() if metric.samples}
    device_name = profile.environment.identity.get("device_name", "")
    environment = {"hash": sha256(identity), "device_name": text(device_name), "identity": identity}
    parents = (configuration["hash"], environment["hash"], sha256(provenance))
    attempt = _attempt_row(profile, origin, saved_unix_seconds)
    detail = {"facts": canonical(profile.facts, "facts"), "notes": canonical(profile.notes, "notes")}
    attempt["hash"] = attempt_hash(parents, {**attempt, **detail}, metrics, samples)
    return Rows(environment, {"hash": parents[2], "json": provenance}, configuration, attempt, detail, metrics, samples)


def attempt_hash(parents: Sequence[str], attempt: Row, metrics: Sequence[Row], samples: Mapping[str, bytes]) -> str:
    """Hash over all that an attempt says: parents' hashes, own columns and details, metrics by name, samples."""
    content = [
        list(parents),
        [attempt[column] for column in _ATTEMPT],
        [[row[column] for column in _METRIC] for row in metrics],
        {name: hashlib.sha256(blob).hexdigest() for name, blob in samples.items()},
    ]
    return sha256(canonical(content, "attempt"))


def canonical(value: Any, what: str) -> str:
    """`value` as JSON text in the one spelling that is hashed and stored. Raises StoreError naming `what`."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{what} cannot be kept: {error}; expected text, finite numbers, lists and tables") from error


def sha256(content: str) -> str:
    """Hex SHA-256 of ASCII text."""
    return hashlib.sha256(content.encode("ascii")).hexdigest()


def text(value: object) -> str:
    """`value` as text that UTF-8 can hold: undecodable bytes of file names appear escaped."""
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def pack(samples: Sequence[float]) -> bytes:
    """Samples as little-endian float64."""
    packed = array("d", samples)
    if byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack(blob: bytes) -> tuple[float, ...]:
    """Samples from little-endian float64."""
    packed = array("d", blob)
    if byteorder == "big":
        packed.byteswap()
    return tuple(packed)


def profile_of(row: Row, metrics: Mapping[str, Metric]) -> Profile:
    """The Profile of a row with the JSON of configuration, identity and provenance. Raises StoreError if not ours."""
    return Profile(
        configuration=decode_configuration(row["configuration"]),
        environment=Environment(json.loads(row["identity"]), json.loads(row["provenance"])),
        status=row["status"],
        reason=row["reason"],
        batch=row["batch"],
        facts=json.loads(row["facts"]),
        metrics=dict(metrics),
        notes=json.loads(row["notes"]),
        started_at=row["started_at"],
        seconds=row["seconds"],
    )


def decode_metric(row: Row, blob: bytes | None = None) -> Metric:
    """The Metric of a row, with its samples if their blob is given."""
    values = {field.name: row[field.name] for field in fields(Metric) if field.name != "samples"}
    return Metric(**{**values, "noisy": bool(row["noisy"])}, samples=unpack(blob) if blob else ())


def decode_configuration(content: str) -> Configuration:
    """The Configuration of its JSON. Raises StoreError for one that this version does not understand."""
    try:
        values = json.loads(content)
        return Configuration(**{**values, "head": HeadConfig(**values["head"])})
    except (TypeError, ValueError, KeyError, LumaError) as error:
        raise StoreError(f"a stored configuration is not understood ({error}); see `luma db check`") from error


def _configuration_row(configuration: Configuration) -> Row:
    # options at their default are left out, so that a configuration of before they existed has the hash that it had
    content = canonical({**asdict(configuration), "head": configuration.head.identity()}, "configuration")
    return {
        "hash": sha256(content),
        **{name: text(getattr(configuration, name)) for name in _LABELS},
        "resolution": configuration.resolution,
        "head": text(configuration.head.name),
        "queries": configuration.head.num_queries,
        "classes": configuration.head.num_classes,
        "l2": configuration.head.l2,
        "batch": configuration.batch,
        "seed": configuration.seed,
        "json": content,
    }


def _attempt_row(profile: Profile, origin: Origin, saved_unix_seconds: float) -> Row:
    facts = profile.facts
    return {
        "fingerprint": profile.fingerprint,
        "status": profile.status,
        "started_unix_seconds": unix_seconds(profile.started_at, saved_unix_seconds),
        "started_at": text(profile.started_at),
        "seconds": profile.seconds + 0.0,
        "batch": profile.batch,
        "plan": text(origin.plan),
        "device_index": origin.device_index,
        "device_uuid": text(origin.device_uuid or profile.environment.provenance.get("gpu_uuid") or ""),
        **{name: _whole(name, facts.get(name)) for name in _INTEGER_FACTS},
        "flops_complete": _flag(facts.get("flops_complete")),
        **{name: None if facts.get(name) is None else text(facts[name]) for name in _TEXT_FACTS},
        **{column: _median(profile.metrics.get(name)) for column, name in _MEDIANS.items()},
        **{f"{name}_noisy": _noisy(profile.metrics.get(name)) for name in _NOISY},
        **{name: _flag(profile.notes.get(name)) for name in _FLAG_NOTES},
        "reason": text(profile.reason),
    }


def _metric_row(name: str, metric: Metric) -> Row:
    if name != metric.name:
        raise StoreError(f"metric {metric.name!r} is filed under {name!r}, expected its own name")
    if metric.unit not in UNITS.get(name, {metric.unit}):
        raise StoreError(f"metric {name} is in {metric.unit!r}, expected {' or '.join(sorted(UNITS[name]))}")
    return {
        "name": text(name),
        "unit": text(metric.unit),
        "median": metric.median + 0.0,
        "ci_low": metric.ci_low + 0.0,
        "ci_high": metric.ci_high + 0.0,
        "p90": None if metric.p90 is None else metric.p90 + 0.0,
        "n": metric.n,
        "noisy": int(metric.noisy),
    }


def _whole(name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise StoreError(f"fact {name} is {value!r}, expected a whole number")


def _median(metric: Metric | None) -> float | None:
    return None if metric is None else metric.median + 0.0


def _noisy(metric: Metric | None) -> int | None:
    return None if metric is None else int(metric.noisy)


def _flag(value: object) -> int | None:
    return None if value is None else int(bool(value))


def unix_seconds(started_at: str, otherwise: float) -> float:
    """Seconds since 1970 of an ISO 8601 time, taken as UTC where it names no zone."""
    try:
        started = datetime.fromisoformat(started_at)
        return (started if started.tzinfo else started.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return otherwise


_TEXTS = (
    *("run_id", "status", "reason", "backbone", "timm_name", "pretraining", "weights", "head", "dataset", "recipe"),
    *("started_at", "folder"),
)
_WHOLES = ("resolution", "seed", "num_steps", "batch", "num_processes", "step")
_UNHASHED = frozenset({"run_key", "hash", "environment_id", "provenance_id"})


def run_row(record: RunRecord, now: float, revision: int = 1) -> Row:
    """The row of `record` without keys and hash. Numbers in `facts` that are not finite become null and are listed."""
    return {
        **{name: text(getattr(record, name)) for name in _TEXTS},
        **{name: getattr(record, name) for name in _WHOLES},
        "seconds": record.seconds + 0.0 if math.isfinite(record.seconds) else 0.0,
        "started_unix_seconds": unix_seconds(record.started_at, now),
        "revision": revision,
        "updated_unix_seconds": now + 0.0,
        "config": canonical(record.config, "the run's configuration"),
        "facts": facts_text(record.facts),
    }


def facts_text(facts: Mapping[str, object]) -> str:
    """`facts` as JSON; what is no finite number is null, and `not_finite` says where."""
    kept, bad = cleaned(dict(facts), "facts")
    return canonical({**kept, "not_finite": bad} if bad else kept, "the run's facts")


def parent_rows(environment: Environment) -> dict[str, Row]:
    """The rows of the tables `environment` and `provenance`."""
    identity = canonical(environment.identity, "environment.identity")
    provenance = canonical(cleaned(environment.provenance, "provenance")[0], "environment.provenance")
    device_name = text(environment.identity.get("device_name", ""))
    return {
        "environment": {"hash": sha256(identity), "device_name": device_name, "identity": identity},
        "provenance": {"hash": sha256(provenance), "json": provenance},
    }


def run_hash(row: Row, environment_hash: str, provenance_hash: str) -> str:
    """Hex SHA-256 of all that `row` says and of its parents' hashes."""
    content = {name: value for name, value in row.items() if name not in _UNHASHED}
    return sha256(canonical([environment_hash, provenance_hash, content], "run"))


def run_of(row: Row) -> RunRecord:
    """The RunRecord of a row that also has `identity` and `provenance` as JSON."""
    values = {field.name: row[field.name] for field in fields(RunRecord) if field.name in row}
    return RunRecord(
        **{**values, "config": json.loads(row["config"]), "facts": json.loads(row["facts"])},
        environment=Environment(json.loads(row["identity"]), json.loads(row["provenance"])),
    )


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
