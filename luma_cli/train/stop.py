"""Stopping at the next step, when a signal asks for it: so that the step is finished and saved. No torch."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

# SIGUSR1 is what SLURM sends ahead of a preemption when told to: `sbatch --signal=USR1@120`.
CODES = {signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGINT: 130}


class StopRequests:
    """Within its `with` block SIGTERM, SIGUSR1 and Ctrl-C only leave a note; a Ctrl-C after any of them stops at once.

    `requested` names the signal, empty for none; `exit_code` is 143 (SIGTERM, SIGUSR1), 130 (Ctrl-C) or 0. The handlers
    that were there before come back at the end of the block. Outside the main thread, where Python allows no handlers,
    nothing is ever requested.
    """

    def __init__(self) -> None:
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
        self._signal = signal.Signals(number)
