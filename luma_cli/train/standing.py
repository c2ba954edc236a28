"""How runs stand: what the database says of them, and whether the process that trains them is still there. No torch."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from luma_cli.store.database import open_read
from luma_cli.store.records import RunRecord
from luma_cli.store.runs import best_miou, list_runs
from luma_cli.train.find_run import FoundRun, folder_of
from luma_cli.train.run_folder import RunFolder
from luma_cli.train.run_lock import Holder, holder

INTERRUPTED = "interrupted"
# From these a run can go on.
_RESUMABLE = frozenset({INTERRUPTED, "stopped", "failed", "diverged"})


@dataclass(frozen=True, slots=True)
class Standing:
    """A run. record: None when the database does not know it. folder: None when it is not on this machine.

    status: of the record, but `interrupted` for one that says running while no process holds its folder. holder: the
    process that trains it. best_miou_percent: see the view `runs`.
    """

    run_id: str
    record: RunRecord | None
    folder: RunFolder | None
    status: str
    holder: Holder | None = None
    best_miou_percent: float | None = None

    @property
    def resume(self) -> str:
        """The command by which it goes on, empty when it cannot from here."""
        return f"luma train --resume {self.run_id}" if self.folder and self.status in _RESUMABLE else ""


def standings(database: str | Path | None = None) -> list[Standing]:
    """All runs of the database, oldest first."""
    connection = open_read(database)
    if connection is None:
        return []
    with closing(connection):
        records, best = list_runs(connection), best_miou(connection)
    return [_standing(record.run_id, record, folder_of(record), best.get(record.run_id)) for record in records]


def standing(found: FoundRun, database: str | Path | None = None) -> Standing:
    """One run."""
    connection = open_read(database)
    best: dict[str, float] = {}
    if connection is not None:
        with closing(connection):
            best = best_miou(connection)
    return _standing(found.run_id, found.record, found.folder, best.get(found.run_id))


def _standing(run_id: str, record: RunRecord | None, folder: RunFolder | None, best: float | None) -> Standing:
    held = holder(folder.path) if folder else None
    status: str = record.status if record else "not in the database"
    if folder and held:
        status = "running"
    elif folder and status == "running":
        status = INTERRUPTED
    return Standing(run_id, record, folder, status, held, best)
