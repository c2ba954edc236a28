"""The folder of a run: what it is, which checkpoints are the latest and the best, who holds it. Imports no torch.

run.json            id of the run, version of luma that started it
config.json         RunConfig.to_json()
lock                held by the process that trains
latest, best        name of a checkpoint, one line
checkpoints/step-000120/
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import socket
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from luma_cli import files
from luma_cli.errors import CheckpointError, LumaError, RunError
from luma_cli.train.config import SCHEMA, RunConfig
from luma_cli.version import __version__

ROOT = Path("runs")
RUN, CONFIG, CHECKPOINTS, LATEST, BEST, LOCK = "run.json", "config.json", "checkpoints", "latest", "best", "lock"
MODEL, EMA, STATE = "model.safetensors", "ema.safetensors", "state.json"  # of a checkpoint
_OWN = frozenset({RUN, CONFIG, CHECKPOINTS, LATEST, BEST, LOCK})
_STRANGE = re.compile(r"[^a-z0-9._]+")
# `luma runs` looks at a lock by taking it for an instant, which must not turn a training away.
_PATIENCE_SECONDS = 1.0
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class RunWarning(UserWarning):
    """Something about a run that works, but with less certainty than expected."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder that holds the run `run_id`."""

    path: Path
    run_id: str

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / CHECKPOINTS

    def config(self) -> RunConfig:
        """What the run was started with. Raises CheckpointError when it cannot be read."""
        return read_config(self.path / CONFIG)

    def pointed(self, name: str) -> str:
        """Name of the checkpoint that `latest` or `best` points to, empty for none."""
        try:
            return (self.path / name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return ""

    def point(self, name: str, checkpoint: str) -> None:
        """Makes `latest` or `best` point to `checkpoint`. Raises OSError."""
        files.write_text(self.path / name, f"{checkpoint}\n")


def new_run_id(backbone: str, data: str, now: datetime, token: str = "") -> str:
    """A name that says when, what and on what, and that no other run has.

    >>> new_run_id("vit_b.dinov3", "ade20k", datetime(2026, 11, 21, 15, 30, 12), "3fa2")
    '20261121-153012-vit_b.dinov3-ade20k-3fa2'
    """
    words = (_word(backbone), _word(Path(data).stem), token or secrets.token_hex(2))
    return "-".join((now.strftime("%Y%m%d-%H%M%S"), *words))


def _word(text: str) -> str:
    """`text` as a part of a file name: the last part of a path or of a hub's name."""
    return _STRANGE.sub("-", text.rstrip("/").rpartition("/")[2].rpartition(":")[2].lower()).strip("-.") or "unnamed"


def check_free(path: Path) -> None:
    """Raise RunError where `started` would: before anything costly is done for a run."""
    if path.exists():
        with locked(path):
            _refuse_used(path)


@contextmanager
def started(path: Path, run_id: str, config: RunConfig) -> Iterator[RunFolder]:
    """A new run folder at `path`, held for the length of the block.

    Raises RunError when another process holds it, when it has a run with a checkpoint or other files, or cannot be
    written.
    """
    with locked(path):
        _refuse_used(path)
        try:
            files.write_text(path / CONFIG, json.dumps(config.to_json(), indent=1, allow_nan=False) + "\n")
            (path / CHECKPOINTS).mkdir(exist_ok=True)
            # last: from here on it is a run
            files.write_text(path / RUN, json.dumps({"schema": 1, "run_id": run_id, "luma": __version__}) + "\n")
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}; name another folder with --out") from error
        yield RunFolder(path, run_id)


@contextmanager
def resumed(path: Path) -> Iterator[RunFolder]:
    """The run folder at `path`, held for the length of the block. Raises RunError as `open_run` does, or if held."""
    folder = open_run(path)
    with locked(path):
        yield folder


def open_run(path: Path) -> RunFolder:
    """The run folder at `path`. Raises RunError when it is none."""
    if not is_run(path):
        raise RunError(f"{path} is not a run folder, expected one with {RUN} in it; `luma runs list` shows all runs")
    run_id = _read_json(path / RUN).get("run_id")
    if not isinstance(run_id, str) or not run_id or run_id != Path(run_id).name or run_id[0] == ".":
        raise RunError(f"{path / RUN} names no run, but {run_id!r}; restore it, or start a new run")
    return RunFolder(path.absolute(), run_id)


def is_run(path: Path) -> bool:
    """Whether a run was started in the folder `path`."""
    return (path / RUN).is_file()


def read_config(file: Path) -> RunConfig:
    """The configuration in `file`. Raises CheckpointError when it cannot be read or is of another schema."""
    values = _read_json(file)
    if values.get("schema") != SCHEMA:
        text = f"{file} has schema {values.get('schema')}, this luma knows {SCHEMA}"
        raise CheckpointError(f"{text}; use the luma that wrote it, or `pip install -U luma-seg`")
    try:
        return RunConfig.from_json(values)
    except (TypeError, ValueError, KeyError, AttributeError, LumaError) as error:
        raise CheckpointError(f"{file} is not the configuration of a run: {error}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} holds a {type(values).__name__}, expected a table")
    return values


def without_checkpoint(path: Path) -> str:
    """The id of a run in the folder that ended before its first checkpoint, and so has nothing to keep; else empty."""
    if not is_run(path) or any(child.name[0] != "." for child in (path / CHECKPOINTS).glob("*")):
        return ""
    return open_run(path).run_id


def _refuse_used(path: Path) -> None:
    if is_run(path) and not without_checkpoint(path):
        run_id = open_run(path).run_id
        raise RunError(f"{path} holds run {run_id}; go on with --resume {path}, or name another folder with --out")
    if strange := sorted(child.name for child in path.iterdir() if child.name not in _OWN and child.name[0] != "."):
        raise RunError(f"{path} holds {strange[0]}, expected a new or empty folder; name another with --out")


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a run folder; pid 0 where that is unknown."""

    pid: int = 0
    host: str = "an unknown host"
    since: str = ""

    def __str__(self) -> str:
        """E.g. `process 4711 on node7`."""
        return f"process {self.pid or 'unknown'} on {self.host}"


@contextmanager
def locked(
    folder: Path, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Holds `folder`, made as needed, for the length of the block. Raises RunError when another process holds it.

    The operating system frees the lock however the process ends. Warns RunWarning on a file system without locks.
    """
    # Not `filelock`: its file does not say who holds it, and without a shared lock to look with, `luma runs` would have
    # to take the lock of a training to see whether it is free.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _Lock(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise RunError(f"{folder} cannot be used: {error.strerror}; name another folder with --out") from error
    try:
        _acquire(lock.handle, folder, sleep, clock)
        here = Holder(os.getpid(), socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds"))
        os.truncate(lock.handle, 0)
        os.pwrite(lock.handle, json.dumps(asdict(here)).encode(), 0)
        yield
    finally:
        lock.close()


def holder(folder: Path) -> Holder | None:
    """Who holds `folder` now; None when nobody does."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError:  # another user's
        return Holder()
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _written(folder)
    else:
        return None
    finally:
        os.close(handle)


class _Lock:
    """The open file of a lock, which a forked child closes: an inherited handle would keep the lock alive."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        close = weakref.WeakMethod(self.close)
        os.register_at_fork(after_in_child=lambda: found() if (found := close()) else None)

    def close(self) -> None:
        """Frees the lock; again is nothing."""
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)


def _acquire(handle: int, folder: Path, sleep: Callable[[float], None], clock: Callable[[], float]) -> None:
    give_up = clock() + _PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _BUSY:
                text = f"{folder}: this file system knows no locks ({error.strerror}); see to it that no other"
                warnings.warn(f"{text} training uses the folder", RunWarning, stacklevel=4)
                return None
            if clock() >= give_up:
                raise RunError(
                    f"{folder} is in use by {_written(folder)}; wait for it, or name another folder with --out"
                ) from error
        sleep(_PATIENCE_SECONDS / 20)


def _written(folder: Path) -> Holder:
    """What the holder wrote; unknown when it has not done so yet."""
    with suppress(OSError, ValueError, TypeError):
        return Holder(**json.loads((folder / LOCK).read_text(encoding="utf-8")))
    return Holder()
