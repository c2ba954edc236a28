"""Runs and evaluations of another database, which is attached as `other`, on their way into ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from luma_cli.store.runs import sweep

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
    own = _columns(connection, "run", "run_key", "environment_id", "provenance_id")
    joins = " ".join(
        f"JOIN other.{table} AS other_{table} ON other_{table}.{table}_id = o.{table}_id "
        f"JOIN main.{table} AS main_{table} ON main_{table}.hash = other_{table}.hash"
        for table in ("environment", "provenance")
    )
    yield f"""INSERT INTO main.run ({", ".join(own)}, environment_id, provenance_id)
        SELECT {", ".join(f"o.{column}" for column in own)}, main_environment.environment_id,
            main_provenance.provenance_id FROM other.run AS o {joins}
        WHERE o.run_id NOT IN (SELECT run_id FROM main.run) ORDER BY o.run_id"""
    rest = _columns(connection, "run_metric", "run_key")
    yield f"""INSERT INTO main.run_metric (run_key, {", ".join(rest)})
        SELECT ours.run_key, {", ".join(f"o.{column}" for column in rest)} FROM other.run_metric AS o
        JOIN other.run AS theirs ON theirs.run_key = o.run_key
        JOIN main.run AS ours ON ours.run_id = theirs.run_id WHERE ours.run_key > :run"""


def _evaluation_statements(connection: sqlite3.Connection) -> Iterator[str]:
    own = ", ".join(_columns(connection, "evaluation", "evaluation_id"))
    yield f"""INSERT INTO main.evaluation ({own}) SELECT {own} FROM other.evaluation
        WHERE hash NOT IN (SELECT hash FROM main.evaluation) ORDER BY hash"""
    for table in ("evaluation_class", "evaluation_image"):
        rest = _columns(connection, table, "evaluation_id")
        yield f"""INSERT INTO main.{table} (evaluation_id, {", ".join(rest)})
            SELECT ours.evaluation_id, {", ".join(f"o.{column}" for column in rest)} FROM other.{table} AS o
            JOIN other.evaluation AS theirs ON theirs.evaluation_id = o.evaluation_id
            JOIN main.evaluation AS ours ON ours.hash = theirs.hash WHERE ours.evaluation_id > :evaluation"""


def _columns(connection: sqlite3.Connection, table: str, *but: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA main.table_info({table})") if row[1] not in but]
