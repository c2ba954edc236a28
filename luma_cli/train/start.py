"""What a run begins with: a new configuration, or that of a run which is resumed, with its newest sound checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from luma_cli.errors import RunError, UsageError
from luma_cli.train import run_folder
from luma_cli.train.checkpoint import CheckpointState, load_checkpoint
from luma_cli.train.checkpoints import changed_versions, latest_sound, read_manifest, versions
from luma_cli.train.config import Given, RunConfig, check_same, continued, new_config, resumed_config
from luma_cli.train.processes import Processes
from luma_cli.train.runs import find_run

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Start:
    """A run before its first step of this session. state: None for a new run."""

    run_id: str
    folder: Path
    config: RunConfig
    state: CheckpointState | None = None

    @property
    def step(self) -> int:
        """Steps that are done."""
        return self.state.step if self.state else 0


def new_start(given: Given, out: Path | None, processes: Processes) -> Start:
    """A new run, its folder checked but not made. Raises RunError for a folder in use, UsageError, BadRecipe."""
    config = new_config(given, processes.num)
    run_id = processes.from_first(run_folder.new_run_id(config.backbone, config.data, datetime.now()))
    folder = (out or run_folder.ROOT / run_id).expanduser().absolute()
    if processes.is_first:
        run_folder.check_free(folder)
    return Start(run_id, folder, config)


def resumed_start(
    given: Given, run: str, out: Path | None, database: Path | None, processes: Processes, note: Note
) -> Start:
    """The run that `run` names, at its newest sound checkpoint, or at the one that `run` is the path of.

    Raises RunError where there is none, or where something is asked for that the run was not started with; UsageError
    for another folder.
    """
    found = find_run(run, database)
    if found.folder and out and out.expanduser().absolute() != found.folder.path.absolute():
        raise UsageError(f"--out {out} is not the folder of run {found.run_id}, which stays; leave --out out")
    if found.folder is None:
        where = f", its folder was {found.record.folder}" if found.record and found.record.folder else ""
        raise RunError(f"run {found.run_id or run} is not on this machine{where}; give the path of its folder")
    path = found.checkpoint
    if path is None:
        sound = latest_sound(found.folder)
        path = sound.path
        for skipped in sound.skipped:
            note(f"left out checkpoint {skipped.name}: {skipped.why}")
    path = Path(processes.from_first(str(path)))
    state = load_checkpoint(path, verify=found.checkpoint is not None)
    config = resumed_config(given, state.config, processes.num)
    for change in (*check_same(state.config, config), *changed_versions(read_manifest(path).versions, versions())):
        note(f"not equal to the last bit: {change}")
    return Start(found.folder.run_id, found.folder.path, continued(state.config, config), state)
