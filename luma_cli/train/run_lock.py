"""One training for each run folder: a lock that the operating system frees, however the process ends. No torch."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from luma_cli.errors import RunError

LOCK = "lock"
# `luma runs` looks at a lock by taking it for an instant, which must not turn a training away.
_PATIENCE_SECONDS = 1.0
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class RunWarning(UserWarning):
    """Something about a run that works, but with less certainty than expected."""


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

    Processes forked meanwhile (loader workers) let go of it, so that it is free at once when this one is killed. Warns
    RunWarning on a file system that knows no locks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _Lock(os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
    except OSError as error:
        raise RunError(f"{folder} cannot be used: {error.strerror}; name another folder with --out") from error
    try:
        _acquire(lock.handle, folder, sleep, clock)
        os.truncate(lock.handle, 0)
        os.pwrite(lock.handle, json.dumps(asdict(_here())).encode(), 0)
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
        here = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _close(here()))

    def close(self) -> None:
        """Frees the lock; again is nothing."""
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)


def _close(lock: _Lock | None) -> None:
    if lock is not None:
        lock.close()


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


def _here() -> Holder:
    return Holder(os.getpid(), socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds"))


def _written(folder: Path) -> Holder:
    """What the holder wrote; unknown when it has not done so yet."""
    with suppress(OSError, ValueError, TypeError):
        return Holder(**json.loads((folder / LOCK).read_text(encoding="utf-8")))
    return Holder()
