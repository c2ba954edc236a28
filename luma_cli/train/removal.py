"""Removing a run: its rows, and its folder when asked. No torch."""

from __future__ import annotations

import shutil
from contextlib import closing, nullcontext
from pathlib import Path

from luma_cli.errors import RunError
from luma_cli.store.database import open_write
from luma_cli.store.runs import delete_run
from luma_cli.train.find_run import FoundRun
from luma_cli.train.run_lock import locked


def remove_run(found: FoundRun, database: str | Path | None = None, *, files: bool = False) -> None:
    """Removes the run from the database, and its folder with `files`: renamed first, so that no half of it is left.

    Raises RunError when a process trains it, or the folder cannot be removed; then the database keeps it.
    """
    with locked(found.folder.path) if found.folder else nullcontext():
        if files and found.folder:
            _remove(found.folder.path.absolute())
        if found.record is not None:
            with closing(open_write(database)) as db:
                delete_run(db, found.run_id)


def _remove(path: Path) -> None:
    try:
        gone = path.rename(path.with_name(f".gone-{path.name}"))
        shutil.rmtree(gone)
    except OSError as error:
        raise RunError(f"{path} cannot be removed: {error.strerror}; remove it by hand") from error
