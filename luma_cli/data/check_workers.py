"""Counts samples in several processes, with the same result as in one. No torch.

Each process is given the split once, so that it opens an archive once, and every so many samples of it. It ends by
itself when the one that started it has gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from luma_cli.data.memory import keep_freed_memory
from luma_cli.data.split import Split
from luma_cli.data.tally import Tally, tally
from luma_cli.errors import DataError

OnSamples = Callable[[int], None]

_CHUNK = 16  # samples between two reports
_ALONE = 64  # starting a process takes as long as checking that many small images


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def tally_all(split: Split, num_workers: int, on_samples: OnSamples = lambda number: None) -> Tally:
    """The counts of the whole split. `on_samples` is called with how many samples were just done.

    Raises DataError when a process is killed.
    """
    chunks = [range(start, min(start + _CHUNK, len(split))) for start in range(0, len(split), _CHUNK)]
    total = Tally()
    alone = num_workers <= 1 or len(split) <= _ALONE
    with closing(_alone(split, chunks) if alone else _shared(split, chunks, num_workers)) as parts:
        for part in parts:
            total.add(part)
            on_samples(part.num_samples)
    return total


def _alone(split: Split, chunks: list[range]) -> Generator[Tally, None, None]:
    for chunk in chunks:
        yield tally(split, chunk)


def _shared(split: Split, chunks: list[range], num_workers: int) -> Generator[Tally, None, None]:
    shares = [share for worker in range(num_workers) if (share := chunks[worker::num_workers])]
    with _started(split, shares) as workers:
        left = {connection: len(share) for connection, share in zip(workers, shares, strict=True)}
        while left:
            for connection in wait(list(left)):
                assert isinstance(connection, Connection)
                yield _received(connection, workers[connection])
                left[connection] -= 1
                if not left[connection]:
                    del left[connection]


def _received(connection: Connection, worker: BaseProcess) -> Tally:
    try:
        part = connection.recv()
    except EOFError:
        worker.join()
        raise DataError(
            f"a checking process ended early (exit code {worker.exitcode}), perhaps for want of memory; try --workers 1"
        ) from None
    if isinstance(part, Exception):
        raise part
    assert isinstance(part, Tally)
    return part


@contextmanager
def _started(split: Split, shares: list[list[range]]) -> Iterator[dict[Connection, BaseProcess]]:
    """A process for each share, by the connection that it reports on; on the way out all of them are ended."""
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, BaseProcess] = {}
    try:
        for share in shares:
            reader, writer = context.Pipe(duplex=False)
            worker: BaseProcess = context.Process(target=_work, args=(split, share, writer), daemon=True)
            workers[reader] = worker
            with _without_interrupts():
                worker.start()
            writer.close()
        yield workers
    finally:
        for connection, worker in workers.items():
            connection.close()
            if worker.pid is not None:
                worker.terminate()
                worker.join()
                worker.close()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process started in here never sees Ctrl-C, which goes to the whole group: the first one ends the others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(split: Split, share: list[range], reports: Connection) -> None:
    """Body of a process: report the tally of each chunk, or the failure that ends it."""
    keep_freed_memory()
    try:
        for chunk in share:
            reports.send(tally(split, chunk))
    except BrokenPipeError:
        return
    except DataError as error:
        reports.send(error)
