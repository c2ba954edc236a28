"""The database on its way in and out: backup to a file, merge of another file, export as CSV or JSON."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from luma_cli.errors import StoreError, UsageError
from luma_cli.store import database
from luma_cli.store.database import transaction, translated
from luma_cli.store.inspection import problems
from luma_cli.store.profiles import columns_of
from luma_cli.store.runs import sweep
from luma_cli.to_json import to_json

if TYPE_CHECKING:
    from sqlite_utils import Database

_BY_TIME = "started_unix_seconds, hash"
# The views that can be exported, in orders that do not depend on integer keys.
_ORDERS = {
    "profiles": _BY_TIME,
    "attempts": _BY_TIME,
    "runs": "started_unix_seconds, run_id",
    "run_curves": "run_id, name, step",
    "evaluations": "evaluated_unix_seconds, evaluation",
    "class_scores": "evaluation, class_index",
    "scores": "evaluation, name",
    "score_costs": "evaluation, profile",
    "evidence": "hash",
}


# What a merge adds, parents first: table, its integer key, the column by which a row is the same in two files, parents
# whose keys the table refers to, and children, whose rows belong to one of its rows.
_TABLES: tuple[tuple[str, str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("configuration", "configuration_id", "hash", (), ()),
    ("environment", "environment_id", "hash", (), ()),
    ("provenance", "provenance_id", "hash", (), ()),
    ("attempt", "attempt_id", "hash", ("configuration", "environment", "provenance"), ("detail", "metric", "sample")),
    ("run", "run_key", "run_id", ("environment", "provenance"), ("run_metric",)),
    ("evaluation", "evaluation_id", "hash", (), ("evaluation_class", "evaluation_image", "evaluation_score")),
    ("evidence_row", "evidence_row_id", "hash", (), ()),
    ("latency_row", "latency_row_id", "hash", (), ()),
)
# Of two states of a run the later one is kept; the hash decides between equal ones.
_OVERTAKEN = """
DELETE FROM main.run WHERE EXISTS (
    SELECT 1 FROM other.run AS o WHERE o.run_id = main.run.run_id AND
        (o.revision, o.updated_unix_seconds, o.hash)
        > (main.run.revision, main.run.updated_unix_seconds, main.run.hash))
"""
# Of a row that both files have, the earliest time known is kept, whatever the order of merging.
_EARLIEST = (
    """UPDATE main.attempt SET started_unix_seconds = o.started_unix_seconds FROM other.attempt AS o
    WHERE o.hash = main.attempt.hash AND o.started_unix_seconds < main.attempt.started_unix_seconds""",
    """UPDATE main.evaluation SET evaluated_unix_seconds = o.evaluated_unix_seconds FROM other.evaluation AS o
    WHERE o.hash = main.evaluation.hash AND o.evaluated_unix_seconds < main.evaluation.evaluated_unix_seconds""",
    """UPDATE main.evidence_row SET imported_unix_seconds = o.imported_unix_seconds, file = o.file
    FROM other.evidence_row AS o WHERE o.hash = main.evidence_row.hash
        AND (o.imported_unix_seconds, o.file) < (main.evidence_row.imported_unix_seconds, main.evidence_row.file)""",
)


# What names a machine, a user or a folder: settings and facts of a run hold the paths of data, weights and imports.
_PRIVATE = frozenset({"folder", "config", "facts", "file", "device_uuid", "environment"})
_FOLDERS = re.compile(r"(?<![\w./:])(?:~[\w-]*)?/(?:[^/\s\"',;]+/)*|(?<!\w)local-dir:/(?:[^/\s\"',;]+/)*")


@dataclass(frozen=True, slots=True)
class MergeResult:
    """Attempts that a merge added, attempts that were known already, and what else it added."""

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


def merge(db: Database, other: str | Path) -> MergeResult:
    """Adds what the database `other` has and ours lacks, all in one transaction; `other` is only read.

    Rows with equal content are the same row: merging again adds nothing, and any order of merges gives the same rows.
    Of a run that both have, the later state is kept, with its curves. Raises StoreError, with nothing added, when
    `other` is missing, damaged or contradicts its hashes.
    """
    file, ours = database.path(other), database.file_of(db.conn)
    if file.exists() and file.samefile(ours):
        raise UsageError(f"{file} is the database itself; name the file to merge into it")
    with _attached(db.conn, file), translated(ours), transaction(db.conn):
        db.conn.execute(_OVERTAKEN)
        added = {table[0]: _add(db.conn, *table) for table in _TABLES}
        for statement in _EARLIEST:
            db.conn.execute(statement)
        sweep(db.conn)
        total = int(db.conn.execute("SELECT count(*) FROM other.attempt").fetchone()[0])
    known = total - added["attempt"]
    return MergeResult(file, added["attempt"], known, added["run"], added["evaluation"], added["evidence_row"])


def export(
    connection: sqlite3.Connection | None,
    stream: TextIO,
    form: Literal["csv", "json"] = "csv",
    view: str = "profiles",
    *,
    shareable: bool = False,
) -> int:
    """Writes the rows of `view`, oldest first, to `stream`; returns how many. Empty cells and null mean not measured.

    JSON is `{"schema": 1, "rows": [{column: value}]}`. The integer keys, which differ from file to file, are left out.
    shareable: without the columns that name a machine or its folders, and with the last part alone of every other path.
    """
    if connection is None:
        raise StoreError("there is no database yet; `luma profile NAME` makes one")
    with translated(database.file_of(connection)):
        hidden = {"attempt_id", *(_PRIVATE if shareable else ())}
        names = [name for name in columns_of(connection, view) if name not in hidden]
        query = f"SELECT {', '.join(names)} FROM {view} ORDER BY {_ORDERS[view]}"
        found = connection.execute(query).fetchall()
    if shareable:
        found = [tuple(_FOLDERS.sub("", cell) if isinstance(cell, str) else cell for cell in row) for row in found]
    if form == "json":
        content = {"schema": 1, "rows": [dict(zip(names, row, strict=True)) for row in found]}
        stream.write(json.dumps(to_json(content), indent=1) + "\n")
    else:
        csv.writer(stream, lineterminator="\n").writerows([names, *found])
    return len(found)


def _copy(file: Path, target: Path) -> None:
    """Copies the database `file` to the new file `target` through SQLite. Raises StoreError when there is none."""
    with closing(database.open_existing(file)) as source, closing(database.connect(target, "rwc")) as copy:
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


def _add(
    connection: sqlite3.Connection, name: str, key: str, same: str, parents: Sequence[str], children: Sequence[str]
) -> int:
    """Adds the rows of table `name` that only `other` has, with their children; returns how many.

    They are ordered by what is the `same` in two files, so that integer keys do not depend on the history of the file.
    """
    last = int(connection.execute(f"SELECT coalesce(max({key}), 0) FROM main.{name}").fetchone()[0])
    parent_keys = [f"{parent}_id" for parent in parents]
    own = _columns(connection, name, key, *parent_keys)
    joins = " ".join(
        f"JOIN other.{parent} AS other_{parent} ON other_{parent}.{parent}_id = o.{parent}_id "
        f"JOIN main.{parent} AS main_{parent} ON main_{parent}.hash = other_{parent}.hash"
        for parent in parents
    )
    values = [*(f"o.{column}" for column in own), *(f"main_{parent}.{parent}_id" for parent in parents)]
    added = connection.execute(
        f"INSERT INTO main.{name} ({', '.join([*own, *parent_keys])}) SELECT {', '.join(values)} "
        f"FROM other.{name} AS o {joins} WHERE o.{same} NOT IN (SELECT {same} FROM main.{name}) ORDER BY o.{same}"
    ).rowcount
    for child in children:
        rest = _columns(connection, child, key)
        connection.execute(
            f"INSERT INTO main.{child} ({', '.join([key, *rest])}) "
            f"SELECT ours.{key}, {', '.join(f'o.{column}' for column in rest)} "
            f"FROM other.{child} AS o JOIN other.{name} AS theirs ON theirs.{key} = o.{key} "
            f"JOIN main.{name} AS ours ON ours.{same} = theirs.{same} WHERE ours.{key} > ? ORDER BY ours.{key}",
            [last],
        )
    return int(added)


def _columns(connection: sqlite3.Connection, table: str, *but: str) -> list[str]:
    """Columns of one of our tables but for those named."""
    return [row[1] for row in connection.execute(f"PRAGMA main.table_info({table})") if row[1] not in but]
