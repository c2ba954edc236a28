"""Training runs in the database: how each stands, and its curves.

Every change of a run is one transaction and raises its `revision`, by which a merge tells the later of two states.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from luma_cli.errors import RunError, StoreError
from luma_cli.store import rows
from luma_cli.store.database import file_of, transaction, translated
from luma_cli.store.profiles import dicts, key_of
from luma_cli.store.records import ClassScore, EvaluationRecord, ImageScore, RunRecord, RunStatus
from luma_cli.store.rows import Row

if TYPE_CHECKING:
    from sqlite_utils import Database


# The metric that tells how good a run is while it trains: mIoU in percent on the validation split.
MIOU = "val/miou_percent"
_LOAD = """
SELECT r.*, e.identity, p.json AS provenance, e.hash AS environment_hash, p.hash AS provenance_hash
FROM run r JOIN environment e USING (environment_id) JOIN provenance p USING (provenance_id)
"""
_ORDER = " ORDER BY r.started_unix_seconds, r.run_id"
_SAVE_METRIC = """
INSERT INTO run_metric (run_key, name, step, value, not_finite) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (run_key, name, step) DO UPDATE SET value = excluded.value, not_finite = excluded.not_finite
"""
_SWEEP = """
DELETE FROM {0} WHERE {0}_id NOT IN (SELECT {0}_id FROM attempt) AND {0}_id NOT IN (SELECT {0}_id FROM run)
"""

MetricRow = tuple[int, str, float]


def start_run(db: Database, record: RunRecord, now: Callable[[], float] = time.time) -> None:
    """Keeps `record` as a run of its id; one that is known is taken up again.

    Of a run that is known the start, the configuration and the environment stay; status, reason, step, folder and
    number of processes are as in `record`, seconds the larger of both, and `facts` are added to those it has.
    """
    with translated(file_of(db.conn)), transaction(db.conn):
        if _row(db.conn, record.run_id) is None:
            _insert(db, record, now())
        else:
            _change(db, record.run_id, lambda row: _again(row, record), now())


def update_run(
    db: Database,
    run_id: str,
    *,
    status: RunStatus | None = None,
    reason: str | None = None,
    step: int | None = None,
    seconds: float | None = None,
    facts: Mapping[str, Any] | None = None,
    now: Callable[[], float] = time.time,
) -> None:
    """Changes what is given; `facts` are added to those that the run has. Raises RunError for an unknown run."""
    given = {"status": status, "reason": None if reason is None else rows.text(reason), "step": step}
    changed: Row = {name: value for name, value in given.items() if value is not None}
    if seconds is not None and math.isfinite(seconds):
        changed["seconds"] = seconds + 0.0

    def change(row: Row) -> None:
        row.update(changed)
        if facts:
            row["facts"] = rows.facts_text({**json.loads(row["facts"]), **facts})

    with translated(file_of(db.conn)), transaction(db.conn):
        _change(db, run_id, change, now())


def save_metrics(db: Database, run_id: str, metrics: Sequence[MetricRow], now: Callable[[], float] = time.time) -> None:
    """Keeps (step, name, value) rows of a run; a number that is there for that step and name is replaced.

    A value that is not finite is kept as that, in words: `curve` gives it back as it was. Raises RunError for an
    unknown run, StoreError, with nothing kept, when the file cannot be written.
    """
    if not metrics:
        return
    with translated(file_of(db.conn)), transaction(db.conn):
        key = _change(db, run_id, lambda row: None, now())
        db.conn.executemany(_SAVE_METRIC, [(key, rows.text(name), step, *_value(v)) for step, name, v in metrics])


def forget_after(db: Database, run_id: str, step: int, now: Callable[[], float] = time.time) -> int:
    """Removes the numbers of later steps than `step`, which is what resuming from there does; returns how many."""
    with translated(file_of(db.conn)), transaction(db.conn):
        key = _change(db, run_id, lambda row: row.update(step=min(row["step"], step)), now())
        return int(db.conn.execute("DELETE FROM run_metric WHERE run_key = ? AND step > ?", [key, step]).rowcount)


def delete_run(db: Database, run_id: str) -> bool:
    """Removes a run, its curves and its evaluations; whether there was one."""
    with translated(file_of(db.conn)), transaction(db.conn):
        known = db.conn.execute("DELETE FROM run WHERE run_id = ?", [rows.text(run_id)]).rowcount
        scored = db.conn.execute(
            "DELETE FROM evaluation WHERE run_id = ? AND run_id <> ''", [rows.text(run_id)]
        ).rowcount
        sweep(db.conn)
    return bool(known or scored)


def sweep(connection: sqlite3.Connection) -> None:
    """Removes environments that no attempt and no run refers to."""
    for table in ("environment", "provenance"):
        connection.execute(_SWEEP.format(table))


def load_run(connection: sqlite3.Connection | None, run_id: str) -> RunRecord | None:
    """The run of this id, or None."""
    if connection is None:
        return None
    with translated(file_of(connection)):
        row = _row(connection, run_id)
    return None if row is None else rows.run_of(row)


def list_runs(connection: sqlite3.Connection | None) -> list[RunRecord]:
    """All runs, oldest first."""
    if connection is None:
        return []
    with translated(file_of(connection)):
        return [rows.run_of(row) for row in dicts(connection.execute(_LOAD + _ORDER))]


def best_miou(connection: sqlite3.Connection | None) -> dict[str, float]:
    """Best mIoU in percent by run id, for runs that have one: of its validations, else of its evaluations."""
    if connection is None:
        return {}
    with translated(file_of(connection)):
        return dict(
            connection.execute("SELECT run_id, best_miou_percent FROM runs WHERE best_miou_percent IS NOT NULL")
        )


def curve(connection: sqlite3.Connection | None, run_id: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of one metric of a run in the order of steps; empty for one that it does not have."""
    return curves(connection, run_id, name).get(rows.text(name), [])


def curves(connection: sqlite3.Connection | None, run_id: str, name: str = "") -> dict[str, list[tuple[int, float]]]:
    """(step, value) by metric, of all metrics of a run or of the one called `name`."""
    found: dict[str, list[tuple[int, float]]] = {}
    if connection is None:
        return found
    query = """SELECT m.name, m.step, m.value, m.not_finite FROM run_metric m JOIN run r USING (run_key)
        WHERE r.run_id = ?1 AND ?2 IN ('', m.name) ORDER BY m.name, m.step"""
    with translated(file_of(connection)):
        for metric, step, value, words in connection.execute(query, [rows.text(run_id), rows.text(name)]):
            found.setdefault(metric, []).append((step, float(words) if words else value))
    return found


def run_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Runs that are not what their hash says, one line each."""
    for row in list(dicts(connection.execute(_LOAD + _ORDER))):
        run_id, parents = row["run_id"], (row.pop("environment_hash"), row.pop("provenance_hash"))
        row.pop("identity"), row.pop("provenance")
        if rows.run_hash(row, *parents) != row["hash"]:
            yield f"run {run_id} is not what its hash says"


def _value(value: float) -> tuple[float | None, str | None]:
    return (value + 0.0, None) if math.isfinite(value) else (None, str(float(value)))


def _row(connection: sqlite3.Connection, run_id: str) -> Row | None:
    return next(iter(dicts(connection.execute(_LOAD + " WHERE r.run_id = ?", [rows.text(run_id)]))), None)


def _insert(db: Database, record: RunRecord, now: float) -> None:
    parents = rows.parent_rows(record.environment)
    row = rows.run_row(record, now)
    row["hash"] = rows.run_hash(row, parents["environment"]["hash"], parents["provenance"]["hash"])
    keys = {f"{table}_id": key_of(db, table, parent) for table, parent in parents.items()}
    db.table("run").insert({**row, **keys})


def _again(row: Row, record: RunRecord) -> None:
    new = rows.run_row(record, 0.0)
    row.update({name: new[name] for name in ("status", "reason", "step", "folder", "num_processes", "num_steps")})
    row["seconds"] = max(row["seconds"], new["seconds"])
    row["facts"] = rows.facts_text({**json.loads(row["facts"]), **json.loads(new["facts"])})


def _change(db: Database, run_id: str, change: Callable[[Row], None], now: float) -> int:
    """Applies `change` to the row of a run, raises its revision; returns its key. Inside a transaction."""
    row = _row(db.conn, run_id)
    if row is None:
        raise RunError(f"no run {run_id!r} in {file_of(db.conn)}; `luma runs list` shows those there are")
    parents = (row.pop("environment_hash"), row.pop("provenance_hash"))
    row.pop("identity"), row.pop("provenance")
    change(row)
    row.update(revision=row["revision"] + 1, updated_unix_seconds=max(now + 0.0, row["updated_unix_seconds"]))
    row["hash"] = rows.run_hash(row, *parents)
    columns = [name for name in row if name != "run_key"]
    assignments = ", ".join(f"{name} = ?" for name in columns)
    db.conn.execute(
        f"UPDATE run SET {assignments} WHERE run_key = ?", [*(row[name] for name in columns), row["run_key"]]
    )
    return int(row["run_key"])


_TEXTS = ("run_id", "checkpoint_sha256", "data", "split", "evaluated_at")
_WHOLES = ("step", "resolution", "num_images", "num_skipped", "num_windows", "num_classes", "num_present")
_REALS = (
    *("miou_percent", "macc_percent", "aacc_percent", "boundary_miou_percent"),
    *("windows_per_image", "macs_per_image", "seconds"),
)
_PARTS = (("evaluation_class", "class_index", ClassScore), ("evaluation_image", "image_index", ImageScore))


def save_evaluation(db: Database, record: EvaluationRecord, now: Callable[[], float] = time.time) -> int:
    """Keeps `record` in one transaction; returns its integer key. Saving the same content again changes nothing.

    Raises StoreError, with nothing kept, for a number that is not finite (None means "there is none").
    """
    row, classes, images = evaluation_rows(record, now())
    with translated(file_of(db.conn)), transaction(db.conn):
        known = db.conn.execute("SELECT evaluation_id FROM evaluation WHERE hash = ?", [row["hash"]]).fetchone()
        if known is not None:
            return int(known[0])
        key = key_of(db, "evaluation", row)
        for (table, _, _), part in zip(_PARTS, (classes, images), strict=True):
            db.table(table).insert_all({"evaluation_id": key, **one} for one in part)
    return key


def evaluation_rows(record: EvaluationRecord, now: float) -> tuple[Row, list[Row], list[Row]]:
    """The rows of `record`: its own with the hash over all of them, those of its classes and those of its images."""
    own = {
        **{name: rows.text(getattr(record, name)) for name in _TEXTS},
        **{name: getattr(record, name) for name in _WHOLES},
        **{name: _real(getattr(record, name), name) for name in _REALS},
        "protocol": rows.canonical(record.protocol, "the protocol of the evaluation"),
    }
    classes = [_part(one, "class_index", index) for index, one in enumerate(record.classes)]
    images = [_part(one, "image_index", index) for index, one in enumerate(record.images)]
    content = rows.sha256(rows.canonical([own, classes, images], "evaluation"))
    evaluated = rows.unix_seconds(record.evaluated_at, now)
    return {**own, "hash": content, "evaluated_unix_seconds": evaluated}, classes, images


def evaluations(
    connection: sqlite3.Connection | None,
    run_id: str | None = None,
    *,
    data: str | None = None,
    split: str | None = None,
    classes: bool = True,
    images: bool = False,
) -> list[EvaluationRecord]:
    """Evaluations, oldest first: of a run, of data (an identity as in RunRecord.dataset) and of a split, or of all.

    Those of one second come in the order of their steps. Without `classes` or `images` they carry none, which spares
    reading them.
    """
    if connection is None:
        return []
    given = {"run_id": run_id, "data": data, "split": split}
    where = " AND ".join(f"{name} = ?" for name, value in given.items() if value is not None) or "1"
    values = [rows.text(value) for value in given.values() if value is not None]
    query = f"SELECT * FROM evaluation WHERE {where} ORDER BY evaluated_unix_seconds, step, hash"
    with translated(file_of(connection)):
        return [
            evaluation_of(connection, row, classes, images) for row in list(dicts(connection.execute(query, values)))
        ]


def evaluation_of(
    connection: sqlite3.Connection, row: Row, classes: bool = True, images: bool = True
) -> EvaluationRecord:
    """The record of a row of `evaluation`."""
    names = [field.name for field in fields(EvaluationRecord) if field.name in row]
    parts = {
        "classes": _read(connection, row["evaluation_id"], *_PARTS[0]) if classes else (),
        "images": _read(connection, row["evaluation_id"], *_PARTS[1]) if images else (),
    }
    return EvaluationRecord(**{**{name: row[name] for name in names}, "protocol": json.loads(row["protocol"]), **parts})


def evaluation_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Evaluations that are not what their hash says, one line each."""
    for row in list(dicts(connection.execute("SELECT * FROM evaluation ORDER BY evaluation_id"))):
        record = evaluation_of(connection, row)
        again, _, _ = evaluation_rows(record, row["evaluated_unix_seconds"])
        if wrong := [name for name, value in again.items() if row[name] != value]:
            yield f"evaluation {row['evaluation_id']}: {', '.join(wrong)} is not what was saved"


def _read(
    connection: sqlite3.Connection, key: int, table: str, index: str, kind: type[ClassScore] | type[ImageScore]
) -> tuple[Any, ...]:
    names = ", ".join(field.name for field in fields(kind))
    found = connection.execute(f"SELECT {names} FROM {table} WHERE evaluation_id = ? ORDER BY {index}", [key])
    return tuple(kind(*row) for row in found)


def _part(score: ClassScore | ImageScore, index_name: str, index: int) -> Row:
    values = asdict(score)
    reals = {name: _real(value, f"{values['name']}.{name}") for name, value in values.items() if "percent" in name}
    return {index_name: index, **values, **reals, "name": rows.text(values["name"])}


def _real(value: float | None, name: str) -> float | None:
    """`value` as SQLite gives it back. Raises StoreError for what is not finite."""
    if value is None:
        return None
    if not math.isfinite(value):
        raise StoreError(f"evaluation: {name} is {value}, expected a finite number or none; nothing was kept")
    return value + 0.0


# Of several evaluations of a run under one protocol the one after most steps, and of these the latest: no step is
# picked by the split that it is judged on. Whether boundaries were scored too does not touch the mIoU.
_QUERY = """
SELECT r.run_id, r.status, r.backbone, r.timm_name, r.pretraining, r.weights, r.resolution, r.head, r.dataset, r.recipe,
    r.seed, json_extract(r.config, '$.head'), json_extract(r.config, '$.recipe'), json_extract(r.facts, '$.params'),
    r.started_at, e.step, e.data, e.split, e.resolution, e.protocol, e.num_images, e.num_skipped, e.miou_percent,
    e.windows_per_image, e.macs_per_image
FROM evaluation e JOIN run r USING (run_id)
WHERE e.miou_percent IS NOT NULL AND e.evaluation_id = (
    SELECT l.evaluation_id FROM evaluation l
    WHERE l.run_id = e.run_id AND l.data = e.data AND l.split = e.split
        AND json_remove(l.protocol, '$.boundary_ratio') = json_remove(e.protocol, '$.boundary_ratio')
    ORDER BY l.step DESC, l.evaluated_unix_seconds DESC, l.hash DESC LIMIT 1
)
ORDER BY r.started_unix_seconds, r.run_id, e.data, e.split, e.protocol
"""


class ScoredRun(NamedTuple):
    """A run and one of its scores, the columns of `run` and `evaluation`.

    head_settings, recipe_settings, protocol: JSON text. params: of the whole segmenter, None when the run does not say.
    window: side in pixels.
    """

    run_id: str
    status: str
    backbone: str
    timm_name: str
    pretraining: str
    weights: str
    resolution: int
    head: str
    dataset: str
    recipe: str
    seed: int
    head_settings: str
    recipe_settings: str
    params: int | None
    started_at: str
    step: int
    data: str
    split: str
    window: int
    protocol: str
    num_images: int
    num_skipped: int
    miou_percent: float
    windows_per_image: float
    macs_per_image: float | None


def scored_runs(connection: sqlite3.Connection | None) -> list[ScoredRun]:
    """The score of every run after its last evaluated step, one for each data, split and protocol; oldest run first.

    Empty without a database.
    """
    if connection is None:
        return []
    with translated(file_of(connection)):
        return list(map(ScoredRun._make, connection.execute(_QUERY)))
