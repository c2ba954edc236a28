"""All that is known about accuracy as one table: shipped results, imported ones and own runs."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from operator import attrgetter
from pathlib import Path

from luma_cli.evidence.evidence import COLUMNS, Evidence, load_reference, marked
from luma_cli.evidence.own_runs import own_rows
from luma_cli.store import database as files

_content = attrgetter(*(name for name in COLUMNS if name != "id"))
_all = attrgetter(*COLUMNS)


def load_evidence(database: Path | None = None, *, own: bool = True) -> list[Evidence]:
    """Every row: shipped ones in the order of their file, imported ones by id, own finished runs oldest first.

    database: the store; $LUMA_DB or the data folder when None, and none need exist. own: add the user's runs.
    Imported rows that contradict others are marked doubtful; those that repeat another row are left out.
    Raises StoreError when the database cannot be read.

    >>> len(load_evidence(own=False)) > 900
    True
    """
    shipped = load_reference()
    connection = files.open_read(database)
    if connection is None:
        return shipped
    from luma_cli.store.runs import scored_runs  # without a database nothing of it is needed

    with closing(connection):
        imported = _imported(connection)
        mine = own_rows(scored_runs(connection)) if own else []
    return [*shipped, *marked(_unknown(imported, [*shipped, *mine]), shipped), *mine]


def load_imported(database: Path | None = None) -> list[Evidence]:
    """The imported rows as they came in, by id. Empty without a database."""
    connection = files.open_read(database)
    if connection is None:
        return []
    with closing(connection):
        return _imported(connection)


def evidence_hash(rows: Iterable[Evidence]) -> str:
    """Hex SHA-256 of what the rows say, ids included; their order does not matter.

    >>> rows = load_reference()
    >>> evidence_hash(rows) == evidence_hash(rows[::-1]) != evidence_hash(rows[1:])
    True
    """
    lines = sorted(repr(_all(row)) for row in rows)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "backslashreplace")).hexdigest()


def _imported(connection: sqlite3.Connection) -> list[Evidence]:
    from luma_cli.store.evidence import evidence_rows, id_of  # a recommendation without a database does without

    return [Evidence(id=id_of(row.pop("hash")), **row) for row in evidence_rows(connection)]


def _unknown(rows: Sequence[Evidence], known: Sequence[Evidence]) -> list[Evidence]:
    """The rows that say something that none of `known` says."""
    near = {(row.miou_percent, row.backbone) for row in rows}  # comparing whole rows with 10,000 others takes longer
    said = {_content(row) for row in known if (row.miou_percent, row.backbone) in near}
    return [row for row in rows if _content(row) not in said]
