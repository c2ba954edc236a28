"""What the database holds on its way in and out: backup to a file, merge of another file, export as CSV or JSON."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from luma_cli.errors import StoreError, UsageError
from luma_cli.store import database
from luma_cli.store.database import transaction, translated
from luma_cli.store.evidence import merge_evidence
from luma_cli.store.inspection import problems
from luma_cli.store.profiles import columns_of
from luma_cli.store.runs import sweep

if TYPE_CHECKING:
    from sqlite_utils import Database


ExportFormat = Literal["csv", "json"]
ExportView = Literal[
    "profiles", "attempts", "runs", "run_curves", "evaluations", "class_scores", "score_costs", "evidence"
]

_PARENTS = ("configuration", "environment", "provenance")
_CHILDREN = ("detail", "metric", "sample")
_BY_TIME = "started_unix_seconds, hash"
# Orders that do not depend on integer keys.
_ORDERS: Mapping[ExportView, str] = {
    "profiles": _BY_TIME,
    "attempts": _BY_TIME,
    "runs": "started_unix_seconds, run_id",
    "run_curves": "run_id, name, step",
    "evaluations": "evaluated_unix_seconds, evaluation",
    "class_scores": "evaluation, class_index",
    "score_costs": "evaluation, profile",
    "evidence": "hash",
}


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did: attempts added and attempts that were there already; what else came in."""

    file: Path
    added: int
    known: int
    runs: int = 0
    evaluations: int = 0
    evidence: int = 0


def backup(source: str | Path | None, target: str | Path, *, overwrite: bool = False) -> Path:
    """A complete copy of the database at `target`, made while others may write. It appears whole or not at all.

    Raises StoreError when there is no database, when `target` exists and `overwrite` is off, or cannot be written.
    """
    file, target = database.path(source), Path(target).expanduser().absolute()
    if target.exists() and (not overwrite or target.samefile(file)):
        raise StoreError(f"{target} exists already; name another file")
    with translated(target), tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        fresh = Path(folder) / target.name
        _copy(file, fresh)
        if overwrite:
            fresh.replace(target)
        elif not database.publish(fresh, target):
            raise StoreError(f"{target} exists already; name another file")
    return target


def merge(db: Database, other: str | Path) -> Merged:
    """Adds what the database `other` has and ours lacks, all in one transaction; `other` is only read.

    Rows are the same if their content is, so merging again adds nothing and any order of merges gives the same rows.
    Of a run that both have, the state that is further stands.
    Raises StoreError, with nothing added, when `other` is missing, damaged or says what its hashes deny.
    """
    file, ours = database.path(other), database.file_of(db.conn)
    if file.exists() and file.samefile(ours):
        raise UsageError(f"{file} is the database itself; name the file to merge into it")
    with _attached(db.conn, file), translated(ours), transaction(db.conn):
        last = int(db.conn.execute("SELECT coalesce(max(attempt_id), 0) FROM main.attempt").fetchone()[0])
        for statement in _merge_statements(db.conn):
            db.conn.execute(statement, {"last": last} if ":last" in statement else {})
        added = int(db.conn.execute("SELECT count(*) FROM main.attempt WHERE attempt_id > ?", [last]).fetchone()[0])
        total = int(db.conn.execute("SELECT count(*) FROM other.attempt").fetchone()[0])
        runs, evaluations = merge_runs(db.conn)
        evidence = merge_evidence(db.conn)
    return Merged(file, added, total - added, runs, evaluations, evidence)


def export(
    connection: sqlite3.Connection | None, stream: TextIO, form: ExportFormat = "csv", view: ExportView = "profiles"
) -> int:
    """Writes the rows of `view`, oldest first, to `stream`; returns how many. Empty cells and null mean not measured.

    JSON is `{"schema": 1, "rows": [{column: value}]}`. The integer keys, which differ from file to file, are left out.
    """
    if connection is None:
        raise StoreError("there is no database yet; `luma profile NAME` makes one")
    with translated(database.file_of(connection)):
        names = [name for name in columns_of(connection, view) if name != "attempt_id"]
        query = f"SELECT {', '.join(names)} FROM {view} ORDER BY {_ORDERS[view]}"
        found = connection.execute(query).fetchall()
    if form == "json":
        content = {"schema": 1, "rows": [dict(zip(names, row, strict=True)) for row in found]}
        stream.write(json.dumps(content, indent=1, allow_nan=False) + "\n")
    else:
        csv.writer(stream, lineterminator="\n").writerows([names, *found])
    return len(found)


def export_file(
    connection: sqlite3.Connection | None,
    target: str | Path,
    form: ExportFormat = "csv",
    view: ExportView = "profiles",
) -> int:
    """`export` to the file `target`, which appears, or is replaced, whole or not at all."""
    target = Path(target).expanduser().absolute()
    with translated(target), tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        fresh = Path(folder) / target.name
        with fresh.open("w", encoding="utf-8", newline="") as stream:
            count = export(connection, stream, form, view)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(target)
    return count


def _copy(file: Path, target: Path) -> None:
    """Copies the database `file` to the new file `target` through SQLite. Raises StoreError when there is none."""
    source = database.open_read(file)
    if source is None:
        raise StoreError(f"{file} does not exist; name the database with --db FILE or LUMA_DB")
    with closing(source), closing(database.connect(target, "rwc")) as copy:
        source.backup(copy)


@contextmanager
def _attached(connection: sqlite3.Connection, file: Path) -> Iterator[None]:
    """`file` as the schema `other` of `connection`: a sound copy of it in our own schema."""
    with translated(file), tempfile.TemporaryDirectory(prefix="luma-merge-") as folder:
        copy = Path(folder) / "other.db"
        _copy(file, copy)
        database.open_write(copy).close()
        known = [content for (content,) in connection.execute("SELECT hash FROM main.attempt")]
        with closing(database.connect(copy, "ro")) as reader:
            if found := problems(reader, known):
                raise StoreError(f"{file} is not sound: {found[0]}; see `luma db check --db {file}`")
        connection.execute("ATTACH ? AS other", [str(copy)])
        try:
            yield
        finally:
            connection.execute("DETACH other")


def _merge_statements(connection: sqlite3.Connection) -> Iterator[str]:
    """SQL that adds to `main` what only `other` has, ordered by hash so that keys do not depend on their history."""
    for table in _PARENTS:
        columns = ", ".join(_columns(connection, table))
        yield f"""INSERT INTO main.{table} ({columns}) SELECT {columns} FROM other.{table}
            WHERE hash NOT IN (SELECT hash FROM main.{table}) ORDER BY hash"""
    own = [column for column in _columns(connection, "attempt") if column not in {f"{table}_id" for table in _PARENTS}]
    keys = ", ".join(f"main_{table}.{table}_id" for table in _PARENTS)
    joins = " ".join(
        f"JOIN other.{table} AS other_{table} ON other_{table}.{table}_id = o.{table}_id "
        f"JOIN main.{table} AS main_{table} ON main_{table}.hash = other_{table}.hash"
        for table in _PARENTS
    )
    yield f"""INSERT INTO main.attempt ({", ".join(own)}, {", ".join(f"{table}_id" for table in _PARENTS)})
        SELECT {", ".join(f"o.{column}" for column in own)}, {keys} FROM other.attempt AS o {joins}
        WHERE o.hash NOT IN (SELECT hash FROM main.attempt) ORDER BY o.hash"""
    yield """UPDATE main.attempt SET started_unix_seconds = o.started_unix_seconds FROM other.attempt AS o
        WHERE o.hash = main.attempt.hash AND o.started_unix_seconds < main.attempt.started_unix_seconds"""
    for table in _CHILDREN:
        rest = [column for column in _columns(connection, table) if column != "attempt_id"]
        yield f"""INSERT INTO main.{table} (attempt_id, {", ".join(rest)})
            SELECT ours.attempt_id, {", ".join(f"o.{column}" for column in rest)}
            FROM other.{table} AS o JOIN other.attempt AS theirs ON theirs.attempt_id = o.attempt_id
            JOIN main.attempt AS ours ON ours.hash = theirs.hash WHERE ours.attempt_id > :last
            ORDER BY ours.attempt_id"""


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Columns of one of our tables but for its own integer key."""
    names = [column[1] for column in connection.execute(f"PRAGMA main.table_info({table})")]
    return [name for name in names if name != f"{table}_id"]


# Of two states of a run the one that is further stands; the hash settles what is left.
_OVERTAKEN = """
DELETE FROM main.run WHERE EXISTS (
    SELECT 1 FROM other.run AS o WHERE o.run_id = main.run.run_id AND
        (o.revision, o.updated_unix_seconds, o.hash)
        > (main.run.revision, main.run.updated_unix_seconds, main.run.hash))
"""
_EARLIEST = """
UPDATE main.evaluation SET evaluated_unix_seconds = o.evaluated_unix_seconds FROM other.evaluation AS o
WHERE o.hash = main.evaluation.hash AND o.evaluated_unix_seconds < main.evaluation.evaluated_unix_seconds
"""


def merge_runs(connection: sqlite3.Connection) -> tuple[int, int]:
    """Adds runs and evaluations that ours lacks, and replaces runs that are further in `other`, curves and all.

    Returns how many runs and how many evaluations came in. Inside a transaction, after the environments.
    """
    connection.execute(_OVERTAKEN)
    last_run, last_evaluation = _last(connection, "run", "run_key"), _last(connection, "evaluation", "evaluation_id")
    for statement in (*_run_statements(connection), *_evaluation_statements(connection)):
        named = {"run": last_run, "evaluation": last_evaluation}
        connection.execute(statement, {name: value for name, value in named.items() if f":{name}" in statement})
    connection.execute(_EARLIEST)
    sweep(connection)
    query = "SELECT (SELECT count(*) FROM main.run WHERE run_key > ?), (SELECT count(*) FROM main.evaluation"
    runs, evaluations = connection.execute(f"{query} WHERE evaluation_id > ?)", [last_run, last_evaluation]).fetchone()
    return int(runs), int(evaluations)


def _last(connection: sqlite3.Connection, table: str, key: str) -> int:
    return int(connection.execute(f"SELECT coalesce(max({key}), 0) FROM main.{table}").fetchone()[0])


def _run_statements(connection: sqlite3.Connection) -> Iterator[str]:
    own = _run_columns(connection, "run", "run_key", "environment_id", "provenance_id")
    joins = " ".join(
        f"JOIN other.{table} AS other_{table} ON other_{table}.{table}_id = o.{table}_id "
        f"JOIN main.{table} AS main_{table} ON main_{table}.hash = other_{table}.hash"
        for table in ("environment", "provenance")
    )
    yield f"""INSERT INTO main.run ({", ".join(own)}, environment_id, provenance_id)
        SELECT {", ".join(f"o.{column}" for column in own)}, main_environment.environment_id,
            main_provenance.provenance_id FROM other.run AS o {joins}
        WHERE o.run_id NOT IN (SELECT run_id FROM main.run) ORDER BY o.run_id"""
    rest = _run_columns(connection, "run_metric", "run_key")
    yield f"""INSERT INTO main.run_metric (run_key, {", ".join(rest)})
        SELECT ours.run_key, {", ".join(f"o.{column}" for column in rest)} FROM other.run_metric AS o
        JOIN other.run AS theirs ON theirs.run_key = o.run_key
        JOIN main.run AS ours ON ours.run_id = theirs.run_id WHERE ours.run_key > :run"""


def _evaluation_statements(connection: sqlite3.Connection) -> Iterator[str]:
    own = ", ".join(_run_columns(connection, "evaluation", "evaluation_id"))
    yield f"""INSERT INTO main.evaluation ({own}) SELECT {own} FROM other.evaluation
        WHERE hash NOT IN (SELECT hash FROM main.evaluation) ORDER BY hash"""
    for table in ("evaluation_class", "evaluation_image"):
        rest = _run_columns(connection, table, "evaluation_id")
        yield f"""INSERT INTO main.{table} (evaluation_id, {", ".join(rest)})
            SELECT ours.evaluation_id, {", ".join(f"o.{column}" for column in rest)} FROM other.{table} AS o
            JOIN other.evaluation AS theirs ON theirs.evaluation_id = o.evaluation_id
            JOIN main.evaluation AS ours ON ours.hash = theirs.hash WHERE ours.evaluation_id > :evaluation"""


def _run_columns(connection: sqlite3.Connection, table: str, *but: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA main.table_info({table})") if row[1] not in but]
