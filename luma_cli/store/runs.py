"""Training runs in the database: the state of each, its curves, and the evaluations of its checkpoints.

Every change of a run is one transaction and raises its `revision`, by which a merge tells the later of two states.
Evaluations never change.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Any

from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.errors import RunError
from luma_cli.store import rows
from luma_cli.store.database import fetch, fetch_dicts, file_of, transaction, translated
from luma_cli.store.profiles import key_of
from luma_cli.store.records import ClassScore, EvaluationRecord, ImageScore, RunRecord, RunStatus
from luma_cli.store.rows import Row

if TYPE_CHECKING:
    from sqlite_utils import Database

# The metric by which a run is judged while it trains: mIoU in percent on the validation split.
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
_PARTS = {"classes": ("evaluation_class", "class_index", ClassScore),
          "images": ("evaluation_image", "image_index", ImageScore)}  # fmt: skip
# Of several evaluations of a run under one protocol the one after most steps, and of these the latest: no step is
# picked by the split that it is judged on. Whether boundaries were scored too does not touch the mIoU.
_SCORED = """
SELECT r.run_id, r.status, r.backbone, r.timm_name, r.pretraining, r.weights, r.resolution,
    json_extract(r.config, '$.head') AS head, r.dataset, r.recipe, json_extract(r.config, '$.recipe') AS usual_recipe,
    r.seed, e.step, e.data, e.split, e.protocol, e.num_images, e.num_skipped, e.miou_percent,
    e.macs_per_image / nullif(e.windows_per_image, 0) AS macs, json_extract(r.facts, '$.params') AS params, r.started_at
FROM evaluation e JOIN run r USING (run_id)
WHERE e.miou_percent IS NOT NULL AND e.evaluation_id = (
    SELECT l.evaluation_id FROM evaluation l
    WHERE l.run_id = e.run_id AND l.data = e.data AND l.split = e.split
        AND json_remove(l.protocol, '$.boundary_ratio') = json_remove(e.protocol, '$.boundary_ratio')
    ORDER BY l.step DESC, l.evaluated_unix_seconds DESC, l.hash DESC LIMIT 1
)
ORDER BY r.started_unix_seconds, r.run_id, e.data, e.split, e.protocol
"""

MetricRow = tuple[int, str, float]


@dataclass(frozen=True, slots=True)
class OwnRun:
    """A run with the score of its last evaluated step.

    dataset, data: identities of what it was trained and evaluated on, e.g. `ade20k`, `ade20k#1a2b3c4d`. recipe: with
    `+` where a setting was changed. usual_recipe: whether it is the shipped one of that name in every setting. head: as
    configured. macs: multiply-adds of the segmenter on one window, params: its parameters, None when not known.
    """

    run_id: str
    status: str
    backbone: str
    timm_name: str
    pretraining: str
    weights: str
    resolution: int
    head: HeadConfig
    dataset: str
    recipe: str
    usual_recipe: bool
    seed: int
    step: int
    data: str
    split: str
    single_scale: bool
    absent: str
    num_images: int
    num_skipped: int
    miou_percent: float
    macs: int | None = None
    params: int | None = None
    started_at: str = ""

    @property
    def architecture(self) -> str:
        """The timm name without its tag; hub and folder names are kept whole."""
        return self.timm_name if ":" in self.timm_name else self.timm_name.split(".")[0]

    @property
    def run_key(self) -> tuple[str, int]:
        """What names the model that was trained: the checkpoint and the size."""
        return self.timm_name, self.resolution

    @property
    def has_default_head(self) -> bool:
        """Whether no option of its head was changed but the number of classes."""
        return self.head == _default_head(self.head.name, self.head.num_classes)

    @property
    def base(self) -> str:
        """Name of the dataset whose card it was evaluated with."""
        return self.data.partition("#")[0]


def start_run(db: Database, record: RunRecord, now: Callable[[], float] = time.time) -> None:
    """Keeps `record` as a run of its id; a known run is taken up again.

    Then start, configuration and environment stay; status, reason, step, folder and number of processes are those of
    `record`, seconds the larger of both, and `facts` are added to the known ones.
    """

    def taken_up(row: Row) -> None:
        new = rows.run_row(record, 0.0)
        row.update({name: new[name] for name in ("status", "reason", "step", "folder", "num_processes", "num_steps")})
        row["seconds"] = max(row["seconds"], new["seconds"])
        row["facts"] = rows.facts_text({**json.loads(row["facts"]), **json.loads(new["facts"])})

    with translated(file_of(db.conn)), transaction(db.conn):
        if _row(db.conn, record.run_id) is not None:
            _change(db, record.run_id, taken_up, now())
            return
        row, parents = rows.run_row(record, now()), rows.parent_rows(record.environment)
        content = rows.run_hash({**row, **{f"{table}_hash": parent["hash"] for table, parent in parents.items()}})
        keys = {f"{table}_id": key_of(db, table, parent) for table, parent in parents.items()}
        db.table("run").insert({**row, "hash": content, **keys})


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
    """Changes what is given; `facts` are added to the known ones. Raises RunError for an unknown run."""
    given: Row = {"status": status, "reason": None if reason is None else rows.text(reason), "step": step}
    given["seconds"] = seconds + 0.0 if seconds is not None and math.isfinite(seconds) else None

    def change(row: Row) -> None:
        row.update({name: value for name, value in given.items() if value is not None})
        if facts:
            row["facts"] = rows.facts_text({**json.loads(row["facts"]), **facts})

    with translated(file_of(db.conn)), transaction(db.conn):
        _change(db, run_id, change, now())


def save_metrics(db: Database, run_id: str, metrics: Sequence[MetricRow], now: Callable[[], float] = time.time) -> None:
    """Keeps (step, name, value) rows of a run; they replace known ones of that step and name.

    A value that is not finite is kept in words, and `curves` gives it back as it was. Raises RunError for an unknown
    run, StoreError, with nothing kept, when the file cannot be written.
    """
    if not metrics:
        return
    with translated(file_of(db.conn)), transaction(db.conn):
        key = _change(db, run_id, lambda row: None, now())
        db.conn.executemany(_SAVE_METRIC, [(key, rows.text(name), step, *_value(v)) for step, name, v in metrics])


def _value(value: float) -> tuple[float | None, str | None]:
    return (value + 0.0, None) if math.isfinite(value) else (None, str(float(value)))


def forget_after(db: Database, run_id: str, step: int, now: Callable[[], float] = time.time) -> int:
    """Removes the numbers of later steps than `step`, as resuming from there needs; returns how many."""
    with translated(file_of(db.conn)), transaction(db.conn):
        key = _change(db, run_id, lambda row: row.update(step=min(row["step"], step)), now())
        return int(db.conn.execute("DELETE FROM run_metric WHERE run_key = ? AND step > ?", [key, step]).rowcount)


def delete_run(db: Database, run_id: str) -> bool:
    """Removes a run, its curves and its evaluations; whether there was one."""
    name = [rows.text(run_id)]
    with translated(file_of(db.conn)), transaction(db.conn):
        known = db.conn.execute("DELETE FROM run WHERE run_id = ?", name).rowcount
        scored = db.conn.execute("DELETE FROM evaluation WHERE run_id = ? AND run_id <> ''", name).rowcount
        sweep(db.conn)
    return bool(known or scored)


def sweep(connection: sqlite3.Connection) -> None:
    """Removes environments that no attempt and no run refers to."""
    for table in ("environment", "provenance"):
        connection.execute(_SWEEP.format(table))


def list_runs(connection: sqlite3.Connection | None) -> list[RunRecord]:
    """All runs, oldest first."""
    return [rows.run_of(row) for row in fetch_dicts(connection, _LOAD + _ORDER)]


def best_miou(connection: sqlite3.Connection | None) -> dict[str, float]:
    """Best mIoU in percent by run id, for runs that have one: of its validations, else of its evaluations."""
    return dict(fetch(connection, "SELECT run_id, best_miou_percent FROM runs WHERE best_miou_percent IS NOT NULL"))


def curves(connection: sqlite3.Connection | None, run_id: str) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of a run by metric."""
    found: dict[str, list[tuple[int, float]]] = {}
    query = """SELECT m.name, m.step, m.value, m.not_finite FROM run_metric m JOIN run r USING (run_key)
        WHERE r.run_id = ? ORDER BY m.name, m.step"""
    for metric, step, value, words in fetch(connection, query, [rows.text(run_id)]):
        found.setdefault(metric, []).append((step, float(words) if words else value))
    return found


def scored_runs(connection: sqlite3.Connection | None) -> list[OwnRun]:
    """The score of every run after its last evaluated step, one for each data, split and protocol; oldest run first."""
    # Thousands of runs share a few heads, recipes and protocols: each text is read once.
    head, is_shipped, protocol = cache(_head), cache(_is_shipped), cache(_protocol)
    found = []
    for row in fetch_dicts(connection, _SCORED):
        row.update(
            head=head(row["head"]), usual_recipe=is_shipped(row["usual_recipe"]), **protocol(row.pop("protocol"))
        )
        row["macs"] = None if row["macs"] is None else round(row["macs"])
        found.append(OwnRun(**row))
    return found


def _head(settings: str) -> HeadConfig:
    return HeadConfig(**json.loads(settings))


def _protocol(settings: str) -> Row:
    protocol = json.loads(settings)
    single_scale = not protocol.get("flip") and list(protocol.get("scales", [1.0])) == [1.0]
    return {"single_scale": single_scale, "absent": protocol.get("absent", "skip")}


def _is_shipped(settings: str) -> bool:
    """Whether every setting is that of the shipped recipe of this name."""
    from luma_cli.catalogue.recipes import load_recipe, recipe_names  # a store without scored runs needs none

    recipe = json.loads(settings)
    if recipe.get("name") not in recipe_names():
        return False
    shipped = json.loads(json.dumps(asdict(load_recipe(recipe["name"]))))
    return all(shipped.get(name) == value for name, value in recipe.items() if name != "source")


@cache
def _default_head(name: HeadName, num_classes: int) -> HeadConfig:
    return HeadConfig(name=name) if name == "none" else HeadConfig(name=name, num_classes=num_classes)


def run_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Runs that are not what their hash says, one line each."""
    for row in fetch_dicts(connection, _LOAD + _ORDER):
        if rows.run_hash(row) != row["hash"]:
            yield f"run {row['run_id']} is not what its hash says"


def _row(connection: sqlite3.Connection, run_id: str) -> Row | None:
    return next(iter(fetch_dicts(connection, _LOAD + " WHERE r.run_id = ?", [rows.text(run_id)])), None)


def _change(db: Database, run_id: str, change: Callable[[Row], None], now: float) -> int:
    """Applies `change` to the row of a run, raises its revision; returns its key. Inside a transaction."""
    row = _row(db.conn, run_id)
    if row is None:
        raise RunError(f"no run {run_id!r} in {file_of(db.conn)}; `luma runs list` shows those there are")
    change(row)
    row.update(revision=row["revision"] + 1, updated_unix_seconds=max(now + 0.0, row["updated_unix_seconds"]))
    row["hash"] = rows.run_hash(row)
    key = int(row["run_key"])
    changed = {name: value for name, value in row.items() if name != "run_key" and name not in rows.RUN_PARENTS}
    assignments = ", ".join(f"{name} = ?" for name in changed)
    db.conn.execute(f"UPDATE run SET {assignments} WHERE run_key = ?", [*changed.values(), key])
    return key


def save_evaluation(db: Database, record: EvaluationRecord, now: Callable[[], float] = time.time) -> int:
    """Keeps `record` in one transaction; returns its integer key. Saving the same content again changes nothing.

    Raises StoreError, with nothing kept, for a number that is not finite (None means "there is none").
    """
    row, parts = _evaluation_rows(record, now())
    with translated(file_of(db.conn)), transaction(db.conn):
        known = db.conn.execute("SELECT evaluation_id FROM evaluation WHERE hash = ?", [row["hash"]]).fetchone()
        if known is not None:
            return int(known[0])
        key = key_of(db, "evaluation", row)
        for (table, _, _), part in zip(_PARTS.values(), parts, strict=True):
            db.table(table).insert_all({"evaluation_id": key, **one} for one in part)
        named = ({"evaluation_id": key, "name": name, "value": value} for name, value in record.scores.items())
        db.table("evaluation_score").insert_all(named)
    return key


def evaluations(
    connection: sqlite3.Connection | None, run_id: str | None = None, *, images: bool = False
) -> list[EvaluationRecord]:
    """Evaluations of a run or of all, oldest first, those of one second by step.

    Without `images` they carry none, which spares reading them.
    """
    if connection is None:
        return []
    where, values = ("1", []) if run_id is None else ("run_id = ?", [rows.text(run_id)])
    query = f"SELECT * FROM evaluation WHERE {where} ORDER BY evaluated_unix_seconds, step, hash"
    parts = _PARTS if images else ("classes",)
    return [_evaluation_of(connection, row, parts) for row in fetch_dicts(connection, query, values)]


def evaluation_problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Evaluations that are not what their hash says, one line each."""
    for row in fetch_dicts(connection, "SELECT * FROM evaluation ORDER BY evaluation_id"):
        again, _ = _evaluation_rows(_evaluation_of(connection, row, _PARTS), row["evaluated_unix_seconds"])
        if wrong := [name for name, value in again.items() if row[name] != value]:
            yield f"evaluation {row['evaluation_id']}: {', '.join(wrong)} is not what was saved"


def _evaluation_rows(record: EvaluationRecord, now: float) -> tuple[Row, list[list[Row]]]:
    """The row of `record`, with the hash over all of it, and the rows of its classes and of its images."""
    own = {
        **rows.columns(record, "evaluation: "),
        "protocol": rows.canonical(record.protocol, "the protocol of the evaluation"),
    }
    given: tuple[Sequence[ClassScore | ImageScore], ...] = (record.classes, record.images)
    parts = [
        [{index: number, **rows.columns(one, f"evaluation: {one.name}.")} for number, one in enumerate(scores)]
        for (_, index, _), scores in zip(_PARTS.values(), given, strict=True)
    ]
    # Scores by name came later: an evaluation without them keeps the hash that it had.
    named = [record.scores] if record.scores else []
    content = rows.sha256(rows.canonical([own, *parts, *named], "evaluation"))
    evaluated = rows.unix_seconds(record.evaluated_at, now)
    return {**own, "hash": content, "evaluated_unix_seconds": evaluated}, parts


def _evaluation_of(connection: sqlite3.Connection, row: Row, parts: Iterable[str]) -> EvaluationRecord:
    """The record of a row of `evaluation` with the `parts` of it that are asked for."""
    scores: dict[str, tuple[Any, ...]] = {}
    for name in parts:
        table, index, kind = _PARTS[name]
        columns = ", ".join(field.name for field in fields(kind))
        query = f"SELECT {columns} FROM {table} WHERE evaluation_id = ? ORDER BY {index}"
        scores[name] = tuple(kind(*each) for each in fetch(connection, query, [row["evaluation_id"]]))
    named = fetch(
        connection, "SELECT name, value FROM evaluation_score WHERE evaluation_id = ?", [row["evaluation_id"]]
    )
    return rows.record_of(EvaluationRecord, row, **scores, scores=dict(sorted(named)))
