"""The numbers of a run on their way into the database: collected, thinned, written every few seconds. No torch."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol

from luma_cli.errors import StoreError
from luma_cli.store.database import StoreWarning, open_write
from luma_cli.store.runs import MetricRow, save_metrics

# Steps of a run that are kept; of a longer one every k-th.
MOST_STEPS = 5_000
_SECONDS = 5.0


class Sink(Protocol):
    """Somewhere else that numbers go, e.g. TensorBoard."""

    def add(self, step: int, name: str, value: float) -> None:
        """Takes one number."""

    def flush(self) -> None:
        """Brings what was taken to where it goes."""

    def close(self) -> None:
        """Ends."""


def every(num_steps: int) -> int:
    """k, where every k-th step of a run of `num_steps` is kept: a matter of the step's number, so that a resumed run
    keeps the same ones.

    >>> every(5_000), every(39_000)
    (1, 8)
    """
    return max(1, -(-num_steps // MOST_STEPS))


class MetricLog:
    """Takes numbers at each step and writes them to the database `file`, at most every `seconds` seconds.

    The database is opened for each writing: no connection is open while loader workers are forked. When it cannot be
    written on the way, training goes on: StoreWarning is given once and the numbers are written later; `flush` and
    `close` raise StoreError.
    """

    def __init__(
        self,
        file: str | Path | None,
        run_id: str,
        num_steps: int,
        *,
        sink: Sink | None = None,
        seconds: float = _SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._run_id, self._every, self._sink = file, run_id, every(num_steps), sink
        self._seconds, self._clock = seconds, clock
        self._rows: list[MetricRow] = []
        self._written = clock()
        self._warned = False

    def add(self, step: int, values: Mapping[str, float], *, always: bool = False) -> None:
        """Takes the numbers of the state after `step` steps, by name, e.g. `train/loss`; `always`: of an evaluation."""
        if not always and step % self._every:
            return
        self._rows.extend((step, name, float(value)) for name, value in values.items())
        if self._sink is not None:
            for name, value in values.items():
                self._sink.add(step, name, float(value))
        if self._clock() - self._written >= self._seconds:
            self._try()

    def flush(self) -> None:
        """Writes what was taken: at a checkpoint, before it, and at the end. Raises StoreError."""
        self._written = self._clock()
        if self._rows:
            with closing(open_write(self._file)) as db:
                save_metrics(db, self._run_id, self._rows)
            self._rows = []
        if self._sink is not None:
            self._sink.flush()

    def close(self) -> None:
        """Writes the rest. Raises StoreError."""
        try:
            self.flush()
        finally:
            if self._sink is not None:
                self._sink.close()

    def _try(self) -> None:
        try:
            self.flush()
        except StoreError as error:
            if not self._warned:
                warnings.warn(f"the numbers of the run wait: {error}", StoreWarning, stacklevel=3)
            self._warned = True
