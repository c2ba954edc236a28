"""The processes that train one model together: how they are launched, how they are asked to stop, what they exchange.

torch is imported only where several processes exchange something, so that `--gpus` and the guided mode start without.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from luma_cli.errors import UsageError
from luma_cli.measure.devices import find_all
from luma_cli.measure.nvml import NvmlMissing

if TYPE_CHECKING:
    import torch
    from torch import Tensor


# SIGUSR1 is what SLURM sends ahead of a preemption when told to: `sbatch --signal=USR1@120`.
CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}
_HANDED_ON = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"  # torchrun's own, and the one that SLURM sends
# A process that died closes its connections at once; this is for one that hangs. Long, as validation may be uneven.
_PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Processes:
    """One process among `num`: `rank` over all machines, `local_rank` on this one. Alone, nothing is exchanged."""

    rank: int = 0
    num: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files, rows and the screen."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """`values` summed over all processes, in place."""
        if self.num > 1:
            _distributed().all_reduce(values)
        return values

    def from_first(self, value: Any) -> Any:
        """The value that the first process passed, in every process."""
        if self.num == 1:
            return value
        carried = [value if self.is_first else None]
        _distributed().broadcast_object_list(carried)
        return carried[0]

    def take_first(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's values of these tensors, in place."""
        if self.num > 1:
            for tensor in tensors:
                _distributed().broadcast(tensor, 0)

    def from_all(self, value: Any) -> list[Any]:
        """What every process passed, by rank."""
        if self.num == 1:
            return [value]
        gathered: list[Any] = [None] * self.num
        _distributed().all_gather_object(gathered, value)
        return gathered

    def wait(self) -> None:
        """Until every process is here."""
        if self.num > 1:
            _distributed().barrier()


def _distributed() -> Any:
    from torch import distributed

    return distributed


def started(variables: Mapping[str, str] = os.environ) -> Processes:
    """What torchrun's variables say of this process; the only one where there are none.

    Raises UsageError for variables that do not fit together.
    """
    if "RANK" not in variables or "WORLD_SIZE" not in variables:
        return Processes()
    try:
        found = Processes(int(variables["RANK"]), int(variables["WORLD_SIZE"]), int(variables.get("LOCAL_RANK", "0")))
    except ValueError as error:
        raise UsageError(f"RANK, WORLD_SIZE or LOCAL_RANK is no number ({error}); start with torchrun") from error
    if not 0 <= found.rank < found.num:
        raise UsageError(f"RANK is {found.rank} of WORLD_SIZE {found.num}; start with torchrun")
    return found


@contextmanager
def joined(device: torch.device, processes: Processes) -> Iterator[Processes]:
    """The processes connected while the block runs: by NCCL on GPUs, else by gloo."""
    if processes.num == 1:
        yield processes
        return
    _distributed().init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield processes
    finally:
        _distributed().destroy_process_group()


class StopRequests:
    """Within its `with` block SIGTERM, SIGUSR1 and Ctrl-C only leave a note; a Ctrl-C after any of them stops at once.

    aloud: whether it is said at once on stderr that the first was heard. `requested` names the signal, empty for none;
    `exit_code` is 143 (SIGTERM, SIGUSR1), 130 (Ctrl-C) or 0. The handlers that were there before come back at the end
    of the block. Outside the main thread, where Python allows no handlers, nothing is ever requested.
    """

    def __init__(self, aloud: bool = False) -> None:
        self._aloud = aloud
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> str:
        """E.g. `SIGTERM`."""
        return "" if self._signal is None else self._signal.name

    @property
    def exit_code(self) -> int:
        """What the process is to exit with after it has saved."""
        return 0 if self._signal is None else CODES[self._signal]

    def __enter__(self) -> StopRequests:
        """Installs the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._before = {one: signal.signal(one, self._note) for one in CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Brings the former handlers back."""
        for one, handler in self._before.items():
            signal.signal(one, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal is not None:
            raise KeyboardInterrupt
        if self._aloud and self._signal is None:  # not print, which may be in the middle of a line
            text = "\nluma: stopping after this step, with a checkpoint; Ctrl-C ends at once and loses the step\n"
            with suppress(OSError):
                os.write(2, text.encode())
        self._signal = signal.Signals(number)


def run_torchrun(arguments: Sequence[str], num_gpus: int) -> int:
    """Run `luma` with `arguments` under torchrun to its end; the exit code that one process would have had."""
    try:
        present = len(find_all())
    except NvmlMissing:
        present = 0
    command = torchrun_command(arguments, num_gpus, present)
    sys.stdout.flush()
    sys.stderr.flush()
    return handing_on(command)


def torchrun_command(arguments: Sequence[str], num_gpus: int, present: int) -> list[str]:
    """The command that starts `luma` with `arguments`, less `--gpus N`, in `num_gpus` processes of this machine.

    Raises UsageError for more GPUs than are present, and for none.
    """
    if num_gpus < 1:
        raise UsageError(f"--gpus {num_gpus}, expected at least 1; leave it out for one process")
    if num_gpus > present:
        remedy = f"try --gpus {present}" if present else "leave --gpus out to train on the CPU"
        raise UsageError(f"--gpus {num_gpus}, but {present} CUDA device(s) are here; {remedy}")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_gpus}"]
    return [*start, f"--signals-to-handle={_HANDED_ON}", "-m", "luma_cli", *without_gpus(arguments)]


def without_gpus(arguments: Sequence[str]) -> list[str]:
    """`arguments` without `--gpus N` or `--gpus=N`.

    >>> without_gpus(["train", "vit_b", "--gpus", "2", "--seed", "1"])
    ['train', 'vit_b', '--seed', '1']
    """
    kept, skip = [], False
    for argument in arguments:
        if skip or argument == "--gpus":
            skip = not skip
        elif not argument.startswith("--gpus="):
            kept.append(argument)
    return kept


def handing_on(command: Sequence[str]) -> int:
    """Run `command`, which gets the signals that are meant for us, each once; its exit code, or that of a stop.

    torchrun ends with 1 after any signal, whether its processes have saved or not.
    """
    got: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, frame: FrameType | None) -> None:
        got.append(number)
        if process is not None:
            process.send_signal(number)

    # Before the start: a signal in between would end this process and leave the other one running.
    before = {one: signal.signal(one, hand_on) for one in (*CODES, signal.SIGHUP)}
    try:
        # A session of its own: a Ctrl-C at the terminal would reach it twice, and the second one stops at once.
        started = subprocess.Popen(command, start_new_session=True)
        early, process = tuple(got), started
        for number in early:
            started.send_signal(number)
        code = started.wait()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    if code and got:
        return CODES.get(signal.Signals(got[0]), 128 + got[0])
    return code if code >= 0 else 128 - code
