"""One worker process per group of configurations: started, listened to asleep, and ended whatever it does.

A worker that is killed, crashes, hangs or talks nonsense becomes the result of the configuration it was at; the
configurations after it go to a fresh worker. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from luma_cli.measure.channel import Channel, LineTooLong
from luma_cli.measure.messages import Options, Result, dump_request, load_result
from luma_cli.store.records import Configuration, Status

COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "luma_cli.measure.worker")
OnStage = Callable[[int, str], None]  # index of the configuration, what the worker is doing

_STDERR_TAIL_BYTES = 4000
_EXIT_SECONDS = 10.0
_OOM_COUNTERS = ("/proc/vmstat", "/sys/fs/cgroup/memory.events")


def run(
    configurations: Sequence[Configuration],
    options: Options,
    *,
    timeout_seconds: float,
    variables: Mapping[str, str] | None = None,
    on_stage: OnStage = lambda index, stage: None,
    command: Sequence[str] = COMMAND,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[tuple[int, Result], None, None]:
    """Yield (index, result) for every configuration, in order, each as soon as it is over.

    `timeout_seconds` bounds each configuration, start of its worker included. Closing the iterator, or an exception
    such as KeyboardInterrupt while it waits, kills the worker and everything that it started.
    """
    done = 0
    while done < len(configurations):
        rest = list(configurations[done:])
        with _worker(command, {**os.environ, **(variables or {})}, clock) as worker:
            for result in worker.results(rest, options, timeout_seconds, partial(on_stage, done)):
                yield done, result
                done += 1


@contextlib.contextmanager
def _worker(command: Sequence[str], variables: Mapping[str, str], clock: Callable[[], float]) -> Iterator[Worker]:
    """A started worker; on the way out its whole session is killed and the process is reaped."""
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as output, os.fdopen(reader, "rb", buffering=0) as events:
        try:
            process = subprocess.Popen(
                [*command, "--events", str(writer)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(writer,),
                start_new_session=True,
                env=dict(variables),
            )
        finally:
            os.close(writer)
        try:
            yield Worker(process, Channel(events.fileno(), clock), output, clock)
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the worker's session and reap the worker: no zombie, nothing left on the GPU."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


class _Trouble(Exception):
    """The worker will send no more results."""

    def __init__(self, status: Status, reason: str):
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Worker:
    """A running worker process and what it says."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: Channel,
        output: IO[bytes],
        clock: Callable[[], float],
    ):
        self._process = process
        self._channel = channel
        self._output = output
        self._clock = clock
        self._oom_kills = oom_kills()

    def results(
        self,
        configurations: list[Configuration],
        options: Options,
        timeout_seconds: float,
        on_stage: Callable[[str], None],
    ) -> Iterator[Result]:
        """Results in order; the last one is trouble when the worker ends or hangs before its work is done."""
        self._send(dump_request(configurations, options))
        for _ in configurations:
            start = self._clock()
            try:
                result = self._next(start + timeout_seconds, timeout_seconds, on_stage)
            except _Trouble as trouble:
                notes = {"stderr_tail": self._tail()}
                yield Result(trouble.status, trouble.reason, notes=notes, seconds=self._clock() - start)
                return
            yield result
        self._let_exit()

    def _send(self, request: bytes) -> None:
        """Write the request; a worker that is gone already shows at the first read. Its stdin stays open: it is the
        worker's sign that we are alive.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(request)
            self._process.stdin.flush()

    def _next(self, deadline: float, timeout_seconds: float, on_stage: Callable[[str], None]) -> Result:
        """The next result that the worker sends. Raises _Trouble when something else comes."""
        stage = "starting"
        while True:
            try:
                line = self._channel.read_line(deadline)
            except TimeoutError:
                raise _Trouble("timeout", f"no result after {timeout_seconds:g} s, while {stage}") from None
            except LineTooLong:
                raise _Trouble("failed", f"the worker wrote no line of its protocol, while {stage}") from None
            if line is None:
                raise self._died(stage)
            try:
                message = json.loads(line)
                if message["kind"] == "result":
                    return load_result(message["result"])
                stage = str(message["stage"])
            except (ValueError, KeyError, TypeError):
                text = line[:80].decode(errors="replace")
                raise _Trouble("failed", f"the worker wrote {text!r} instead of a message, while {stage}") from None
            on_stage(stage)

    def _died(self, stage: str) -> _Trouble:
        """What an end without a result means."""
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return _Trouble("failed", f"the worker closed its pipe but went on, while {stage}")
        if code == -signal.SIGKILL and oom_kills() > self._oom_kills:
            return _Trouble("oom", f"killed by the kernel for want of memory, while {stage}")
        if code < 0:
            return _Trouble("crashed", f"killed by {_signal_name(-code)}, while {stage}")
        return _Trouble("crashed", f"ended with exit code {code} and no result, while {stage}")

    def _tail(self) -> str:
        """The end of what the worker printed."""
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _STDERR_TAIL_BYTES))
        return self._output.read().decode(errors="replace")

    def _let_exit(self) -> None:
        """Give a finished worker time to leave by itself; its results stand whatever its exit code is."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)


def _signal_name(number: int) -> str:
    """E.g. SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def oom_kills(counters: Sequence[str] = _OOM_COUNTERS) -> int:
    """Processes that the kernel has killed so far for want of memory, as far as it tells."""
    total = 0
    for path in map(Path, counters):
        with contextlib.suppress(OSError):
            match = re.search(r"^oom_kill (\d+)$", path.read_text(), re.M)
            total += int(match[1]) if match else 0
    return total
