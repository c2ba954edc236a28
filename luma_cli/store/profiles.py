"""Profiles in the database: kept one transaction each, found again by fingerprint, selected by column."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import TYPE_CHECKING, Any

from luma_cli.catalogue.heads import VARIANTS, HeadConfig
from luma_cli.errors import UsageError
from luma_cli.store import rows
from luma_cli.store.database import fetch, fetch_dicts, file_of, transaction, translated
from luma_cli.store.records import Metric, Profile
from luma_cli.store.rows import UNKNOWN, Origin, Row, finite

if TYPE_CHECKING:
    from sqlite_utils import Database


VIEWS = (
    *("profiles", "attempts", "metrics"),
    *("runs", "run_curves", "evaluations", "class_scores", "scores", "score_costs", "evidence"),
)
_LOAD = """
SELECT a.attempt_id, a.fingerprint, a.status, a.reason, a.batch, d.facts, d.notes, a.started_at, a.seconds,
    c.json AS configuration, e.identity, p.json AS provenance
FROM attempt a JOIN configuration c USING (configuration_id) JOIN environment e USING (environment_id)
    JOIN provenance p USING (provenance_id) JOIN detail d USING (attempt_id)
WHERE a.attempt_id IN (SELECT value FROM json_each(?))
ORDER BY a.started_unix_seconds, a.hash
"""
_METRICS = "SELECT * FROM metric WHERE attempt_id IN (SELECT value FROM json_each(?))"
_SAMPLES = "SELECT attempt_id, name, samples FROM sample WHERE attempt_id IN (SELECT value FROM json_each(?))"
_LATEST = """
SELECT attempt_id FROM (
    SELECT attempt_id,
        row_number() OVER (PARTITION BY fingerprint ORDER BY started_unix_seconds DESC, hash DESC) AS place
    FROM attempt WHERE fingerprint IN (SELECT value FROM json_each(?))
) WHERE place = 1
"""
# First the columns of Conditions, then those of Measured; a batch fixed by hand has no throughput at the plateau.
_MEASURED = """
SELECT p.device, p.device_name, p.dtype, p.attention, p.compile, p.channels_last, p.head, p.queries, p.classes,
    p.l2_requested, p.tap_requested, p.ffn_requested, p.prefix, p.design, p.environment,
    p.backbone, p.timm_name, p.resolution_pixels, p.family, p.pretraining,
    iif(p.flops_complete IS NOT 0, p.macs, NULL), p.params, p.latency_eager_p50_ms,
    iif(p.batch_requested = 0, p.throughput_images_per_second, NULL),
    ifnull(p.memory_device_bytes, iif(p.device GLOB 'cpu*', p.memory_allocated_bytes, NULL)), p.energy_j_per_image,
    p.backbone_hash <> '', p.started_at, p.fingerprint,
    p.latency_eager_noisy, p.throughput_noisy, p.energy_noisy, p.throttled, p.shared
FROM profiles p
WHERE p.status = 'ok' AND p.head <> 'none' AND p.part = 'all'
"""


@dataclass(frozen=True, slots=True, order=True)
class Conditions:
    """What must be equal between two rows before their numbers are compared.

    environment: the environment's identity as JSON text (device model, library versions, driver, power limit).
    """

    device: str
    device_name: str
    dtype: str
    attention: str
    compile: str
    channels_last: str
    head: str
    num_queries: int
    num_classes: int
    l2: int
    tap: str
    ffn: str
    prefix: bool
    design: str
    environment: str

    @property
    def label(self) -> str:
        """One line for tables; of the head's options those that differ from the default."""
        head = ["head", self.head]
        head += [f"{self.l2} blocks"] if self.l2 > 1 else []
        head += [f"tap {self.tap}"] if self.tap != "output" else []
        head += [f"ffn {self.ffn}"] if self.ffn != "auto" else []
        head += ["prefix tokens seen"] if self.prefix else []
        head += [design] if (design := head_design(self.design)) else []
        return (
            f"{self.device_name}, {self.dtype}, attention {self.attention}, compile {self.compile}, "
            f"channels-last {self.channels_last}, {' '.join(head)}, {self.num_classes} classes"
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """One profile of backbone plus head, from its latest attempt if that ended well. None means not measured.

    latency_ms: median at batch 1, eager. images_per_second: at the plateau batch, None for a batch fixed by hand.
    memory_bytes: peak at batch 1 on the device; on a CPU, of the allocator. energy_joules: per image.
    flags: why the numbers may be wrong (`throttled`, `shared` with another process); such rows decide nothing.
    own_module: whether the backbone came from `--import`, so that a card of the same name means another one.
    """

    name: str
    timm_name: str
    resolution: int
    conditions: Conditions
    family: str = "unknown"
    pretraining: str = ""
    macs: int | None = None
    params: int | None = None
    latency_ms: float | None = None
    images_per_second: float | None = None
    memory_bytes: float | None = None
    energy_joules: float | None = None
    noisy: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    own_module: bool = False
    started_at: str = ""
    fingerprint: str = ""

    @property
    def architecture(self) -> str:
        """The timm name without its tag; hub and folder names are kept whole."""
        return self.timm_name if ":" in self.timm_name else self.timm_name.split(".")[0]

    @property
    def key(self) -> tuple[str, int, str, int]:
        """As `Workload.key`; a module of the user's own has only its own name."""
        name = self.name if self.own_module else self.architecture
        return name, self.resolution, self.conditions.head, self.conditions.num_classes


@dataclass(frozen=True, slots=True)
class ProfileStore:
    """A database open for writing, as a sweep takes it."""

    database: Database
    origin: Origin = UNKNOWN

    def save(self, profile: Profile) -> Profile:
        """Keeps `profile`; returns it as kept, see `save`."""
        return save(self.database, profile, self.origin)

    def latest(self, fingerprints: Iterable[str]) -> dict[str, Profile]:
        """Latest attempt by fingerprint, without samples."""
        return latest(self.database.conn, fingerprints)


def save(db: Database, profile: Profile, origin: Origin = UNKNOWN, now: Callable[[], float] = time.time) -> Profile:
    """Keeps `profile` in one transaction and returns it as kept: with a number that is not finite it is a `failed` one.

    Saving the same content again changes nothing. Raises StoreError, with nothing kept, when it cannot be written.
    """
    kept = finite(profile)
    encoded = rows.profile_rows(kept, origin, now())
    content, started = encoded.attempt["hash"], encoded.attempt["started_unix_seconds"]
    with translated(file_of(db.conn)), transaction(db.conn):
        if db.conn.execute("SELECT 1 FROM attempt WHERE hash = ?", [content]).fetchone():
            # The only column that is not content: the earliest time known, so that every order of merging agrees.
            query = "UPDATE attempt SET started_unix_seconds = min(started_unix_seconds, ?) WHERE hash = ?"
            db.conn.execute(query, [started, content])
            return kept
        parents = {f"{table}_id": key_of(db, table, row) for table, row in encoded.parents.items()}
        key = key_of(db, "attempt", {**encoded.attempt, **parents})
        db.table("detail").insert({"attempt_id": key, **encoded.detail})
        db.table("metric").insert_all({"attempt_id": key, **row} for row in encoded.metrics)
        db.table("sample").insert_all({"attempt_id": key, "name": n, "samples": b} for n, b in encoded.samples.items())
    return kept


def latest(
    connection: sqlite3.Connection | None, fingerprints: Iterable[str], *, samples: bool = False
) -> dict[str, Profile]:
    """The latest attempt of each of `fingerprints` that has one. Without `samples` their metrics carry none."""
    wanted = json.dumps(sorted(set(fingerprints)))
    keys = [key for (key,) in fetch(connection, _LATEST, [wanted])]
    return {profile.fingerprint: profile for profile in load(connection, keys, samples=samples).values()}


def measurements(connection: sqlite3.Connection | None, device_name: str | None = None) -> list[Measured]:
    """Measured segmenters, of one device or of all. Empty without a database."""
    if connection is None:
        return []
    of_device, values = ("", []) if device_name is None else (" AND p.device_name = ?", [device_name])
    shared = cache(_conditions)  # 100,000 rows share a handful
    with translated(file_of(connection)):  # row by row: a list of 100,000 tuples in between costs 7%
        return [_measured(row, shared(row[:15])) for row in connection.execute(_MEASURED + of_device, values)]


def _conditions(columns: tuple[Any, ...]) -> Conditions:
    device, device_name = columns[:2]
    chosen = (*columns[2:12], bool(columns[12]), *columns[13:15])
    return Conditions(device.split(":")[0], device_name or device, *chosen)


def _measured(row: tuple[Any, ...], conditions: Conditions) -> Measured:
    noisy = tuple(compress(("latency", "throughput", "energy"), row[29:32]))
    flags = tuple(compress(("throttled", "shared"), row[32:]))
    rest: tuple[Any, ...] = (*row[18:26], noisy, flags, bool(row[26]), *row[27:29])
    return Measured(row[15], row[16], row[17], conditions, *rest)


def head_design(stored: str) -> str:
    """The `design` of the views in words, empty for the usual head: see `HeadConfig.design`."""
    variant, mask_stride, layer_scale, qkv_bias, read_norm, query_norm = json.loads(stored)
    if variant not in VARIANTS:  # a rung, which has no other options
        return str(variant)
    return HeadConfig(
        variant=variant,
        mask_stride=mask_stride,
        layer_scale=bool(layer_scale),
        qkv_bias=bool(qkv_bias),
        read_norm=read_norm,
        query_norm=bool(query_norm),
    ).design


def device_names(connection: sqlite3.Connection | None) -> list[str]:
    """Names of the devices that anything was measured on, in alphabetical order."""
    query = "SELECT DISTINCT device_name FROM environment WHERE device_name <> '' ORDER BY 1"
    return [name for (name,) in fetch(connection, query)]


def select_rows(
    connection: sqlite3.Connection | None, columns: Sequence[str], *, view: str = "profiles", **where: object
) -> list[tuple[Any, ...]]:
    """Plain tuples of `columns` of `view`, those whose columns equal the values in `where` (a list means any of them).

    Only the columns asked for are computed. Raises UsageError for a column that the view does not have.

    >>> select_rows(None, ["gmacs"], device_name="NVIDIA H200", status=["ok", "oom"])
    []
    """
    if connection is None:
        return []
    known = columns_of(connection, view)
    if unknown := sorted({*columns, *where} - set(known)):
        raise UsageError(f"no column {unknown[0]!r} in {view}, expected one of: {', '.join(known)}")
    conditions: list[str] = []
    values: list[object] = []
    for column, wanted in where.items():
        each = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
        conditions.append(f"({' OR '.join([f'{column} IS ?'] * len(each)) or 0})")
        values += [rows.text(value) if isinstance(value, str) else value for value in each]
    condition = " AND ".join(conditions) or "1"
    return fetch(connection, f"SELECT {', '.join(columns)} FROM {view} WHERE {condition}", values)


def columns_of(connection: sqlite3.Connection, view: str) -> list[str]:
    """Columns of one of our views. Raises UsageError for another name."""
    if view not in VIEWS:
        raise UsageError(f"no view {view!r}, expected one of: {', '.join(VIEWS)}")
    return [column[1] for column in fetch(connection, f"PRAGMA table_info({view})")]


def load(connection: sqlite3.Connection | None, keys: Collection[int], *, samples: bool = True) -> dict[int, Profile]:
    """Profiles by attempt_id, oldest first."""
    wanted = [json.dumps(list(keys))]
    blobs = {(key, name): blob for key, name, blob in fetch(connection, _SAMPLES, wanted)} if samples else {}
    metrics: dict[int, dict[str, Metric]] = {key: {} for key in keys}
    for row in fetch_dicts(connection, _METRICS, wanted):
        key, name = row["attempt_id"], row["name"]
        metrics[key][name] = rows.metric_of(row, blobs.get((key, name)))
    attempts = fetch_dicts(connection, _LOAD, wanted)
    return {row["attempt_id"]: rows.profile_of(row, metrics[row["attempt_id"]]) for row in attempts}


def key_of(db: Database, table: str, row: Row) -> int:
    """Integer key of the row of `table` with this hash, inserted if there is none. `table` is one of ours."""
    query = f"SELECT {table}_id FROM {table} WHERE hash = ?"
    if db.conn.execute(query, [row["hash"]]).fetchone() is None:
        db.table(table).insert(row)
    return int(db.conn.execute(query, [row["hash"]]).fetchone()[0])
