"""What RUN means on the command line: an id, the start of one, `latest`, or a path. No torch."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from luma_cli.errors import RunError
from luma_cli.store.database import open_read
from luma_cli.store.records import RunRecord
from luma_cli.store.runs import list_runs
from luma_cli.train import run_folder
from luma_cli.train.checkpoints import is_checkpoint
from luma_cli.train.run_folder import CHECKPOINTS, CONFIG, RunFolder

NEWEST = "latest"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FoundRun:
    """What was meant. folder: of the run, None when it is not on this machine. record: None when not in the database.

    checkpoint: folder of the checkpoint, or weights file, that the text named; None for a run.
    """

    run_id: str
    folder: RunFolder | None = None
    record: RunRecord | None = None
    checkpoint: Path | None = None


def find_run(text: str, database: str | Path | None = None, root: Path = run_folder.ROOT) -> FoundRun:
    """The run or checkpoint that `text` names.

    A path of a run folder, of a checkpoint or of a .safetensors file with its config.json beside it; else the id of a
    run in the database or in `root`, the start of just one, or `latest` for the run that was started last.
    Raises RunError, naming what there is, when it is none or several.
    """
    records = {record.run_id: record for record in _records(database)}
    if (found := _by_path(Path(text).expanduser(), records)) is not None:
        return found
    folders = _folders(root)
    ids = list(dict.fromkeys([*sorted(folders), *records]))
    run_id = _newest(records, folders) if text == NEWEST else _matching(text, ids)
    return FoundRun(run_id, folder_of(records.get(run_id)) or folders.get(run_id), records.get(run_id))


def folder_of(record: RunRecord | None) -> RunFolder | None:
    """The run folder of a record, None where it is not on this machine, cannot be read or has another run in it."""
    folder = _readable(Path(record.folder)) if record and record.folder else None
    return folder if folder and record and folder.run_id == record.run_id else None


def _readable(path: Path) -> RunFolder | None:
    """The run folder at `path`, None for another's or a damaged one: one of many must not hide the others."""
    try:
        return run_folder.open_run(path) if run_folder.is_run(path) else None
    except (RunError, OSError):
        return None


def _records(database: str | Path | None) -> list[RunRecord]:
    connection = open_read(database)
    if connection is None:
        return []
    with closing(connection):
        return list_runs(connection)


def _by_path(path: Path, records: dict[str, RunRecord]) -> FoundRun | None:
    if run_folder.is_run(path):
        folder = run_folder.open_run(path)
        return FoundRun(folder.run_id, folder, records.get(folder.run_id))
    if is_checkpoint(path):
        above = path.absolute().parent
        home = above.parent if above.name == CHECKPOINTS and run_folder.is_run(above.parent) else None
        owner = None if home is None else run_folder.open_run(home)
        run_id = "" if owner is None else owner.run_id
        return FoundRun(run_id, owner, records.get(run_id), path)
    beside = path.parent if path.suffix == ".safetensors" else path
    if path.exists() and (beside / CONFIG).is_file():
        return FoundRun("", checkpoint=path)
    return None


def _folders(root: Path) -> dict[str, RunFolder]:
    if not root.is_dir():
        return {}
    return {folder.run_id: folder for path in sorted(root.iterdir()) if (folder := _readable(path))}


def _newest(records: dict[str, RunRecord], folders: dict[str, RunFolder]) -> str:
    """The run started last. Records come oldest first; a run of which only the folder is known ranks by its id."""
    known = list(records)[-1:]
    others = sorted(set(folders) - set(records))[-1:]
    if not known and not others:
        raise RunError("there is no run yet; `luma train BACKBONE --data ...` starts one")
    return max([*known, *others], key=lambda run_id: (run_id[:15], run_id in records))


def _matching(text: str, ids: list[str]) -> str:
    if text in ids:
        return text
    starting = [run_id for run_id in ids if text and run_id.startswith(text)]
    if len(starting) == 1:
        return starting[0]
    if starting:
        raise RunError(f"{text!r} is the start of {len(starting)} runs, expected of one: {_listed(starting)}")
    if not ids:
        raise RunError(f"no run {text!r}: there is none yet; `luma train BACKBONE --data ...` starts one")
    near = get_close_matches(text, ids, n=_SHOWN, cutoff=0.5)
    raise RunError(f"no run or checkpoint {text!r}; there is {_listed(near or ids)}; `luma runs list` shows all")


def _listed(ids: list[str]) -> str:
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return ", ".join(ids[-_SHOWN:]) + more
