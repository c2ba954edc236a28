"""Trainings in several processes, as torchrun would start them, forked from one process that has torch loaded already.

Loading torch and timm takes longer than all that these trainings compute.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PATIENCE_SECONDS = 240.0


def run_together(num_processes: int, arguments: Sequence[str], log: Path) -> None:
    """Run `luma` with `arguments` in that many processes to the end. Raises AssertionError with what they wrote."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["luma_cli.train.api", "luma_cli.cli.app", "timm"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_run, args=(_variables(rank, num_processes, port), list(arguments), str(log)))
        for rank in range(num_processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
        process.close()
    assert codes == [0] * num_processes, log.read_text()


def _variables(rank: int, num_processes: int, port: int) -> dict[str, str]:
    """Environment of one process: the test's own, and what torchrun says of the process."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
    rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return {**os.environ, **{name: str(value) for name, value in {**place, **rendezvous}.items()}}


def _run(variables: Mapping[str, str], arguments: Sequence[str], log: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(variables)
    import torch

    from luma_cli.cli.app import run

    torch.set_num_threads(1)
    sys.exit(run(list(arguments)))
