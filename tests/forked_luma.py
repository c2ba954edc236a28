"""`luma` in processes of its own, forked from one that has torch loaded already.

Loading torch and timm takes longer than all that the trainings of these tests compute.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE_SECONDS = 240.0


class Forked:
    """A `luma` that runs in a session of its own; what it prints goes to `log`."""

    def __init__(self, arguments: Sequence[str], log: Path, variables: Mapping[str, str] | None = None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["luma_cli.train.run", "luma_cli.cli.app", "timm"])
        environment = {**os.environ, **(variables or {})}
        self.log = log
        self._process = context.Process(target=_luma, args=(environment, list(arguments), str(log)))
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, -N after signal N; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit code once it has ended. One that has not ended in time is killed, which fails the test."""
        self._process.join(seconds)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
            self._process.join()
        assert code is not None, f"still running after {seconds:.0f} s: {self.said()}"
        return code

    def said(self) -> str:
        """Everything that it printed so far."""
        return self.log.read_text() if self.log.exists() else ""


def run_together(num_processes: int, arguments: Sequence[str], log: Path) -> None:
    """Run `luma` in that many processes, as torchrun would start them, until all have ended well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        Forked(arguments, log.with_suffix(f".{rank}"), _place(rank, num_processes, port))
        for rank in range(num_processes)
    ]
    codes = [each.wait() for each in started]
    assert codes == [0] * num_processes, "\n".join(each.said() for each in started)


def _place(rank: int, num_processes: int, port: int) -> dict[str, str]:
    """What torchrun says of a process in its environment."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
    return {name: str(value) for name, value in {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items()}


def _luma(variables: Mapping[str, str], arguments: Sequence[str], log: str) -> None:
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(variables)
    import torch

    from luma_cli.cli.app import main

    torch.set_num_threads(1)
    sys.argv = ["luma", *arguments]
    main()
