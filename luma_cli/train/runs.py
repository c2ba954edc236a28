"""Runs by what the user calls them: finding one, telling how it stands, removing it. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import closing, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from luma_cli.errors import CheckpointError, RunError
from luma_cli.store.database import open_read, open_write
from luma_cli.store.records import RunRecord
from luma_cli.store.runs import best_miou, delete_run, list_runs
from luma_cli.train import checkpoints, run_folder
from luma_cli.train.checkpoints import damage, is_checkpoint, read_manifest
from luma_cli.train.config import Given, RunConfig, Settings, new_config
from luma_cli.train.run_folder import CHECKPOINTS, CONFIG, EMA, MODEL, STATE, Holder, RunFolder, holder, locked

Which = Literal["best", "latest"]
NEWEST = "latest"
INTERRUPTED = "interrupted"
_SHOWN = 5
_RESUMABLE = frozenset({INTERRUPTED, "stopped", "failed", "diverged"})


@dataclass(frozen=True, slots=True)
class FoundRun:
    """What was meant. folder: of the run, None when it is not on this machine. record: None when not in the database.

    checkpoint: folder of the checkpoint, or weights file, that the text named; None for a run.
    """

    run_id: str
    folder: RunFolder | None = None
    record: RunRecord | None = None
    checkpoint: Path | None = None


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


def find_run(text: str, database: str | Path | None = None, root: Path = run_folder.ROOT) -> FoundRun:
    """The run or checkpoint that `text` names.

    A path of a run folder, of a checkpoint or of a .safetensors file with its config.json beside it; else the id of a
    run in the database or in `root`, the start of just one, or `latest` for the run that was started last.
    Raises RunError, naming what there is, when it is none or several.
    """
    records = {record.run_id: record for record in _stored(database)[0]}
    if (found := _by_path(Path(text).expanduser(), records)) is not None:
        return found
    paths = sorted(root.iterdir()) if root.is_dir() else []
    folders = {folder.run_id: folder for path in paths if (folder := _readable(path))}
    ids = list(dict.fromkeys([*sorted(folders), *records]))
    run_id = _newest(records, folders) if text == NEWEST else _matching(text, ids)
    return FoundRun(run_id, folder_of(records.get(run_id)) or folders.get(run_id), records.get(run_id))


@dataclass(frozen=True, slots=True)
class FoundWeights:
    """A weights file with the configuration beside it. which: `best` or `latest` of a run, empty for a named one.

    run_id is empty and step 0 for weights that came without their run.
    """

    file: Path
    config: RunConfig
    step: int
    run_id: str
    sha256: str
    which: str


def find_weights(
    text: str, which: Which = "best", database: str | Path | None = None, *, ema: bool = True
) -> FoundWeights:
    """The weights that `text` names, see `find_run`: averaged ones where there are some, unless `ema` is off.

    Every byte is checked against the manifest. Raises RunError for an unknown run, CheckpointError for a damaged one.
    """
    found = find_run(text, database)
    file, chosen = found.checkpoint, ""
    if file is None:
        if found.folder is None:
            place = found.record.folder if found.record else "a folder of its own"
            raise RunError(
                f"run {found.run_id} has its checkpoints in {place}, which is not here; name a checkpoint's path"
            )
        is_best = which == "best"
        file = checkpoints.best(found.folder) if is_best else checkpoints.latest_sound(found.folder).path
        chosen = "best" if is_best and read_manifest(file).best else "latest"
    if not file.is_file():
        file /= EMA if ema and (file / EMA).is_file() else MODEL
    config = run_folder.read_config(file.parent / CONFIG)
    step, sha256 = _verified(file)
    return FoundWeights(file, config, step, found.run_id, sha256, chosen)


def refuse_early(given: Given, settings: Settings) -> None:
    """Raises what a training of these would, as far as names, settings and files of cards say: without torch."""
    if settings.resume:
        find_run(settings.resume, settings.database)
    else:
        new_config(given, start=find_weights(given.init, database=settings.database).config if given.init else None)


def _verified(weights: Path) -> tuple[int, str]:
    """Step and SHA-256 of a weights file: as its checkpoint's manifest says, and true; else computed."""
    folder = weights.parent
    if is_checkpoint(folder):
        manifest = read_manifest(folder)
        if why := damage(folder, manifest):
            raise CheckpointError(f"{folder} is damaged: {why}; name another checkpoint")
        if weights.name in manifest.files:
            return manifest.step, manifest.files[weights.name].sha256
    if not weights.is_file():
        raise CheckpointError(f"{weights} does not exist; expected the weights of a checkpoint")
    try:
        step = int(json.loads((folder / STATE).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError, TypeError):
        step = 0
    with weights.open("rb") as file:
        return step, hashlib.file_digest(file, "sha256").hexdigest()


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


def _stored(database: str | Path | None) -> tuple[list[RunRecord], dict[str, float]]:
    """All runs of the database, oldest first, and the best mIoU in percent by run."""
    connection = open_read(database)
    if connection is None:
        return [], {}
    with closing(connection):
        return list_runs(connection), best_miou(connection)


def _by_path(path: Path, records: dict[str, RunRecord]) -> FoundRun | None:
    if run_folder.is_run(path):
        folder = run_folder.open_run(path)
        return FoundRun(folder.run_id, folder, records.get(folder.run_id))
    if is_checkpoint(path):
        above = path.absolute().parent
        is_inside = above.name == CHECKPOINTS and run_folder.is_run(above.parent)
        owner = run_folder.open_run(above.parent) if is_inside else None
        run_id = owner.run_id if owner else ""
        return FoundRun(run_id, owner, records.get(run_id), path)
    beside = path.parent if path.suffix == ".safetensors" else path
    if path.exists() and (beside / CONFIG).is_file():
        return FoundRun("", checkpoint=path)
    if path.suffix == ".safetensors" or (path / MODEL).is_file():
        what = f"{CONFIG} is missing beside it; copy it from the checkpoint" if path.exists() else "no such file"
        raise RunError(f"{path}: {what}; `luma runs list` shows all runs")
    return None


def _newest(records: dict[str, RunRecord], folders: dict[str, RunFolder]) -> str:
    """The run started last. Records come oldest first; a run of which only the folder is known ranks by its id."""
    known = [*list(records)[-1:], *sorted(set(folders) - set(records))[-1:]]
    if not known:
        raise RunError("there is no run yet; `luma train BACKBONE --data ...` starts one")
    return max(known, key=lambda run_id: (run_id[:15], run_id in records))


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


def standings(database: str | Path | None = None) -> list[Standing]:
    """All runs of the database, oldest first."""
    records, best = _stored(database)
    return [_standing(record.run_id, record, folder_of(record), best) for record in records]


def standing(found: FoundRun, database: str | Path | None = None) -> Standing:
    """One run."""
    return _standing(found.run_id, found.record, found.folder, _stored(database)[1])


def _standing(run_id: str, record: RunRecord | None, folder: RunFolder | None, best: dict[str, float]) -> Standing:
    held = holder(folder.path) if folder else None
    status: str = record.status if record else "not in the database"
    if folder and held:
        status = "running"
    elif folder and status == "running":
        status = INTERRUPTED
    return Standing(run_id, record, folder, status, held, best.get(run_id))


def remove_run(found: FoundRun, database: str | Path | None = None, *, files: bool = False) -> None:
    """Removes the run from the database, and its folder with `files`: renamed first, so that no half of it is left.

    Raises RunError when a process trains it, or the folder cannot be removed; then the database keeps it.
    """
    with locked(found.folder.path) if found.folder else nullcontext():
        if files and found.folder:
            path = found.folder.path.absolute()
            try:
                shutil.rmtree(path.rename(path.with_name(f".gone-{path.name}")))
            except OSError as error:
                raise RunError(f"{path} cannot be removed: {error.strerror}; remove it by hand") from error
        if found.record is not None:
            with closing(open_write(database)) as db:
                delete_run(db, found.run_id)
