"""Training runs in the database: how each stands, and its curves.

Every change of a run is one transaction and raises its `revision`, by which a merge tells the later of two states.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from luma_cli.errors import RunError
from luma_cli.store import rows, run_rows
from luma_cli.store.database import file_of
from luma_cli.store.faults import translated
from luma_cli.store.migrations import transaction
from luma_cli.store.profiles import dicts, key_of
from luma_cli.store.rows import Row
from luma_cli.store.run_records import RunRecord, RunStatus

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
            row["facts"] = run_rows.facts_text({**json.loads(row["facts"]), **facts})

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
    return None if row is None else run_rows.decode(row)


def list_runs(connection: sqlite3.Connection | None) -> list[RunRecord]:
    """All runs, oldest first."""
    if connection is None:
        return []
    with translated(file_of(connection)):
        return [run_rows.decode(row) for row in dicts(connection.execute(_LOAD + _ORDER))]


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


def problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Runs that are not what their hash says, one line each."""
    for row in list(dicts(connection.execute(_LOAD + _ORDER))):
        run_id, parents = row["run_id"], (row.pop("environment_hash"), row.pop("provenance_hash"))
        row.pop("identity"), row.pop("provenance")
        if run_rows.hash_of(row, *parents) != row["hash"]:
            yield f"run {run_id} is not what its hash says"


def _value(value: float) -> tuple[float | None, str | None]:
    return (value + 0.0, None) if math.isfinite(value) else (None, str(float(value)))


def _row(connection: sqlite3.Connection, run_id: str) -> Row | None:
    return next(iter(dicts(connection.execute(_LOAD + " WHERE r.run_id = ?", [rows.text(run_id)]))), None)


def _insert(db: Database, record: RunRecord, now: float) -> None:
    parents = run_rows.parents(record.environment)
    row = run_rows.encode(record, now)
    row["hash"] = run_rows.hash_of(row, parents["environment"]["hash"], parents["provenance"]["hash"])
    keys = {f"{table}_id": key_of(db, table, parent) for table, parent in parents.items()}
    db.table("run").insert({**row, **keys})


def _again(row: Row, record: RunRecord) -> None:
    new = run_rows.encode(record, 0.0)
    row.update({name: new[name] for name in ("status", "reason", "step", "folder", "num_processes", "num_steps")})
    row["seconds"] = max(row["seconds"], new["seconds"])
    row["facts"] = run_rows.facts_text({**json.loads(row["facts"]), **json.loads(new["facts"])})


def _change(db: Database, run_id: str, change: Callable[[Row], None], now: float) -> int:
    """Applies `change` to the row of a run, raises its revision; returns its key. Inside a transaction."""
    row = _row(db.conn, run_id)
    if row is None:
        raise RunError(f"no run {run_id!r} in {file_of(db.conn)}; `luma runs list` shows those there are")
    parents = (row.pop("environment_hash"), row.pop("provenance_hash"))
    row.pop("identity"), row.pop("provenance")
    change(row)
    row.update(revision=row["revision"] + 1, updated_unix_seconds=max(now + 0.0, row["updated_unix_seconds"]))
    row["hash"] = run_rows.hash_of(row, *parents)
    columns = [name for name in row if name != "run_key"]
    assignments = ", ".join(f"{name} = ?" for name in columns)
    db.conn.execute(
        f"UPDATE run SET {assignments} WHERE run_key = ?", [*(row[name] for name in columns), row["run_key"]]
    )
    return int(row["run_key"])
