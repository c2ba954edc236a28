"""Worker processes for measuring and counting: start them, wait for their answers asleep, and end them.

A worker reads a line of options from stdin, then one job a line, and writes stages and one answer per job to a pipe.
A worker that is killed, crashes, hangs or writes anything else becomes the Trouble of its current job; a fresh worker
does the rest. Imports no torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from luma_cli.measure.imports import Import
from luma_cli.measure.timing import Rule, summarise
from luma_cli.store.records import Metric, Status

T = TypeVar("T")
OnStage = Callable[[int, str], None]  # index of the job, what the worker is doing

COMMAND: tuple[str, ...] = (sys.executable, "-P", "-m", "luma_cli.measure.worker")
# A profile with all raw samples is well under 1 MiB; more without a newline is not one of ours.
LONGEST_LINE = 64 * 2**20
_READ_BYTES = 1 << 16
_STDERR_TAIL_BYTES = 4000
_EXIT_SECONDS = 10.0
_LEAVE_SECONDS = 2.0  # leaving an idle GPU takes a worker far less
_LONGEST_POLL_MS = 2**31 - 1
_OOM_COUNTERS = ("/proc/vmstat", "/sys/fs/cgroup/memory.events")


@dataclass(frozen=True, slots=True)
class Options:
    """What a worker needs beside its jobs: limits, threads, the GPU's UUID, modules to import first."""

    rule: Rule = field(default_factory=Rule)
    num_threads: int = 0
    uuid: str = ""
    imports: tuple[Import, ...] = ()
    energy_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What a worker is doing now."""

    text: str


@dataclass(slots=True)
class Result:
    """The measurement of one configuration, filled step by step; the sweep adds the environment and the facts."""

    status: Status
    reason: str = ""
    batch: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, name: str, unit: str, values: Sequence[float], *, tail: bool = False, noisy: bool = False) -> None:
        """Add the metric of these samples; `tail` adds the 90th percentile. Raises MeasureError, see `summarise`."""
        self.metrics[name] = summarise(name, unit, values, tail=tail, noisy=noisy)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a worker gave no answer, after how many seconds, the end of its stderr, and its exit code if it ended."""

    status: Status
    reason: str
    seconds: float
    stderr_tail: str
    code: int | None = None


def dump(message: Any) -> bytes:
    """A dataclass as one line, under its class' name. Raises ValueError for a number that is not finite."""
    return json.dumps({type(message).__name__: dataclasses.asdict(message)}, allow_nan=False).encode() + b"\n"


def load(line: bytes, kinds: Sequence[type[Any]]) -> Any:
    """What `dump` wrote, one of `kinds`. Raises an error for anything else, a missing or unknown field included."""
    ((name, values),) = json.loads(line).items()
    return _restore(next(kind for kind in kinds if kind.__name__ == name), values)


def _restore(kind: Any, value: Any) -> Any:
    """JSON as a `kind`: a dataclass, a tuple or dict of them, or a plain value."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        if set(value) != {each.name for each in dataclasses.fields(kind)}:
            raise ValueError(f"no {kind.__name__}")
        return kind(**{name: _restore(hints[name], each) for name, each in value.items()})
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return tuple(_restore(arguments[0], each) for each in value)
    if origin is dict:
        return {name: _restore(arguments[1], each) for name, each in value.items()}
    if origin in (Union, UnionType):  # of something and None
        return None if value is None else _restore(arguments[0], value)
    is_right = value in arguments if origin is Literal else kind is Any or isinstance(value, kind)
    if not is_right and not (kind is float and type(value) is int):
        raise ValueError(f"{value!r} is no {kind}")
    return value


def run(
    jobs: Sequence[Any],
    options: Options,
    kinds: Sequence[type[T]],
    *,
    timeout_seconds: float,
    num_workers: int = 1,
    variables: Mapping[str, str] | None = None,
    on_stage: OnStage = lambda index, stage: None,
    command: Sequence[str] = COMMAND,
) -> Generator[tuple[int, T | Trouble], None, None]:
    """Yield (index, answer) of every job as soon as it is over; one worker keeps their order.

    kinds: classes of answers. `timeout_seconds` limits each job, start of its worker included. Closing the iterator, or
    an exception such as KeyboardInterrupt while it waits, ends the workers and everything that they started.
    """
    waiting = deque(enumerate(jobs))
    workers: list[_Worker] = []
    try:
        while waiting or workers:
            while waiting and len(workers) < num_workers:
                workers.append(_Worker(command, {**os.environ, **(variables or {})}, options, timeout_seconds))
                workers[-1].take(*waiting.popleft())
            for worker in _wait(workers):
                answer = worker.listen(kinds, on_stage)
                if answer is None:
                    continue
                yield worker.index, answer
                if waiting and not isinstance(answer, Trouble):
                    worker.take(*waiting.popleft())
                else:
                    workers.remove(worker)
                    worker.end()
    finally:
        for worker in workers:
            worker.end()


def _wait(workers: Sequence[_Worker]) -> list[_Worker]:
    """Sleep in the kernel until a worker writes or is overdue; return those."""
    poll = select.poll()
    for worker in workers:
        poll.register(worker.events, select.POLLIN)
    remaining = min(worker.remaining for worker in workers)
    readable = {events for events, _ in poll.poll(max(0.0, min(remaining * 1e3, _LONGEST_POLL_MS)))}
    return [worker for worker in workers if worker.events in readable or worker.remaining <= 0]


class _Worker:
    """A worker process at one job at a time. It ends itself when its stdin closes, so also when we die."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], options: Options, timeout_seconds: float):
        self._timeout_seconds = timeout_seconds
        self._is_idle = False
        self._oom_kills = oom_kills()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `end`)
        self.events, writer = os.pipe()
        try:
            self._process = subprocess.Popen(
                [*command, "--events", str(writer)],
                stdin=subprocess.PIPE,
                stdout=self._output,
                stderr=self._output,
                pass_fds=(writer,),
                start_new_session=True,  # a group of its own, to be killed with all that it started
                env=variables,
            )
        except BaseException:
            os.close(self.events)
            self._output.close()
            raise
        finally:
            os.close(writer)
        self._send(options)

    def take(self, index: int, job: Any) -> None:
        """Begin with a job."""
        self.index, self._stage, self._heard, self._start = index, "starting", b"", time.monotonic()
        self._is_idle = False
        self._send(job)

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a worker that is gone already shows at the first read
            self._process.stdin.write(dump(message))
            self._process.stdin.flush()

    @property
    def remaining(self) -> float:
        """Seconds until the current job is overdue."""
        return self._start + self._timeout_seconds - time.monotonic()

    def listen(self, kinds: Sequence[type[T]], on_stage: OnStage) -> T | Trouble | None:
        """Read what the worker wrote, or note that it is overdue: an answer, or None when there is none yet."""
        if self.remaining <= 0:
            return self._trouble("timeout", f"no result after {self._timeout_seconds:g} s")
        data = os.read(self.events, _READ_BYTES)
        if not data:
            return self._ended()
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            try:
                message = load(line, (Stage, *kinds))
            except (ValueError, KeyError, TypeError, AttributeError, StopIteration, RecursionError):
                text = line[:80].decode(errors="replace")
                return self._trouble("failed", f"the worker wrote {text!r} instead of a message")
            if not isinstance(message, Stage):
                self._is_idle = True
                answer: T = message
                return answer
            self._stage = message.text
            on_stage(self.index, message.text)
        if len(self._heard) > LONGEST_LINE:
            return self._trouble("failed", f"the worker wrote over {LONGEST_LINE} bytes without a newline")
        return None

    def _ended(self) -> Trouble:
        """The trouble of a worker that ended without an answer."""
        try:
            code = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            return self._trouble("failed", "the worker closed its pipe and kept running")
        if code == -signal.SIGKILL and oom_kills() > self._oom_kills:
            return self._trouble("oom", "killed by the kernel because memory ran out", code)
        if code < 0:
            name = {each.value: each.name for each in signal.Signals}.get(-code, f"signal {-code}")
            return self._trouble("crashed", f"killed by {name}", code)
        return self._trouble("crashed", f"ended with exit code {code} and no result", code)

    def _trouble(self, status: Status, reason: str, code: int | None = None) -> Trouble:
        size = self._output.seek(0, os.SEEK_END)
        self._output.seek(max(0, size - _STDERR_TAIL_BYTES))
        tail = self._output.read().decode(errors="replace")
        return Trouble(status, f"{reason}, while {self._stage}", time.monotonic() - self._start, tail, code)

    def end(self) -> None:
        """Let an idle worker leave by itself, for a moment; then kill its session and reap it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if self._is_idle:
            # Its end of the pipe closes when it leaves: this wakes at once, where Popen.wait would poll.
            left = select.poll()
            left.register(self.events, select.POLLIN)
            left.poll(_LEAVE_SECONDS * 1e3)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()  # no zombie
        os.close(self.events)
        self._output.close()


def oom_kills(counters: Sequence[str] = _OOM_COUNTERS) -> int:
    """Processes that the kernel has killed so far because memory ran out, where it counts them."""
    total = 0
    for path in map(Path, counters):
        with contextlib.suppress(OSError):
            match = re.search(r"^oom_kill (\d+)$", path.read_text(), re.M)
            total += int(match[1]) if match else 0
    return total
