"""Progress on stderr: one line that is redrawn on a terminal, else a line now and then. Imports no torch.

Nothing is drawn between events, so that nothing spins beside a measurement.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, TextIO

from luma_cli.units import gibibytes

if TYPE_CHECKING:
    from luma_cli.measure.sweep import Event as SweepEvent
    from luma_cli.store.records import Profile
    from luma_cli.train.loop import Evaluated, Started, Stepped
    from luma_cli.train.loop import Event as TrainingEvent


_SECONDS_BETWEEN_DRAWINGS = 0.2
_SMOOTHING = 0.1  # weight of the newest step in the rate


class _StatusLine:
    """A line that lasts until the next one, and lines that stay; `seconds` between lines that cannot be redrawn."""

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.monotonic, seconds: float = 10.0) -> None:
        self._file = file
        self._live = file.isatty() and os.environ.get("TERM") != "dumb"
        self._clock = clock
        self._seconds = _SECONDS_BETWEEN_DRAWINGS if self._live else seconds
        self._start = self._said = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._clear()

    def _due(self, now: float, last: bool = False) -> bool:
        """Whether it is time for another status line; the last one is always due."""
        if not last and now - self._said < self._seconds:
            return False
        self._said = now
        return True

    def _status(self, text: str, last: bool = False) -> None:
        """Redraw the line, or print one; the last one stays."""
        if self._live and not last:
            text = text[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[2K{text}", end="", file=self._file, flush=True)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        """A line that stays, in place of the status line."""
        self._clear()
        print(text, file=self._file, flush=True)

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[2K", end="", file=self._file, flush=True)


class Progress(_StatusLine):
    """Callable for the events of a sweep. Without a terminal only results are printed."""

    def __init__(self, file: TextIO) -> None:
        super().__init__(file)
        self._kept = 0
        self._weights = ""

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._clear()
        if self._kept and kind is None:
            print(f"{self._kept} already measured; --again measures them again", file=self._file)

    def __call__(self, event: SweepEvent) -> None:
        """Show one event."""
        configuration = event.configuration
        where = f"[{event.index + 1}/{event.total}] {configuration.backbone} at {configuration.resolution} px"
        if event.kind == "kept":
            self._kept += 1
        elif event.kind == "stage" and self._live:
            left = "" if event.eta_seconds is None else f" (about {_minutes(event.eta_seconds)} left)"
            self._status(f"{where}: {event.text}{left}")
        elif event.profile is not None:
            # One file of weights serves several profiles and is named once.
            weights = _weights_line(event.profile)
            if weights and weights != self._weights:
                self._print(weights)
                self._weights = weights
            self._print(f"{where}: {_summary(event.profile)}")


def _summary(profile: Profile) -> str:
    if profile.status != "ok":
        return f"{profile.status}: {profile.reason}"
    parts = []
    if throughput := profile.metrics.get("throughput"):
        parts.append(f"{throughput.median:.4g} img/s at batch {profile.batch}")
    if latency := profile.metrics.get("latency_eager"):
        parts.append(f"{latency.median:.4g} ms")
    if memory := profile.metrics.get("memory_device") or profile.metrics.get("memory_allocated"):
        parts.append(f"{gibibytes(memory.median):.2f} GiB")
    return ", ".join(parts) or "ok"


def _weights_line(profile: Profile) -> str:
    """The file of a profile's weights, its SHA-256 and what was converted; empty for random weights."""
    loaded = profile.notes.get("weights")
    if not loaded:
        return ""
    changes = "; ".join(loaded["conversions"]) or "unchanged"
    return f"weights {loaded['source']} (SHA-256 {loaded['sha256']}): {changes}"


class Countdown(_StatusLine):
    """To be called after each of `total` items: how many are done, and how long the rest takes. done: the verb."""

    def __init__(
        self, file: TextIO, total: int, clock: Callable[[], float] = time.monotonic, done: str = "counted"
    ) -> None:
        super().__init__(file, clock)
        self._word, self._total, self._done = done, total, 0

    def __call__(self, number: int = 1) -> None:
        """So many more are done."""
        self._done += number
        now, last = self._clock(), self._done == self._total
        if self._due(now, last):
            spent = now - self._start
            left = _minutes(spent / self._done * (self._total - self._done))
            done = f"luma: {self._word} {self._done} of {self._total} in {_minutes(spent)}"
            self._status(f"{done}, about {left} left", last)


class TrainingProgress(_StatusLine):
    """Callable for the events of a training; without a terminal a line every half minute."""

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(file, clock, seconds=30.0)
        self._said = float("-inf")
        self._rate = 0.0  # seconds per step, smoothed
        self._last: tuple[int, float] | None = None

    def __call__(self, event: TrainingEvent) -> None:
        """Show one event."""
        from luma_cli.train import loop

        match event:
            case loop.Started():
                self._started(event)
            case loop.Stepped():
                self._stepped(event)
            case loop.Evaluating() if self._live and self._due(self._clock(), event.done == event.total):
                self._status(f"step {event.step}: validating {event.done}/{event.total}")
            case loop.Evaluated():
                self._last = None  # the time of a validation or of a checkpoint is not that of a step
                self._print(evaluation_line(event))
            case loop.Saved():
                self._last = None
            case loop.Noted():
                self._print(event.text)

    def _started(self, event: Started) -> None:
        self._print(f"run {event.run_id} in {event.folder}")
        for name, value in event.facts.items():
            self._print(f"  {name}: {value}")
        if event.step:
            self._print(f"  resumed at step {event.step} of {event.num_steps}")

    def _stepped(self, event: Stepped) -> None:
        now = self._clock()
        if self._last is not None and event.step == self._last[0] + 1:
            seconds = now - self._last[1]
            self._rate += (seconds - self._rate) * (_SMOOTHING if self._rate else 1.0)
        self._last = (event.step, now)
        last = event.step == event.num_steps
        if self._due(now, last):
            width = shutil.get_terminal_size().columns - 1 if self._live else None
            self._status(step_line(event, self._rate, width), last)


def step_line(event: Stepped, seconds_per_step: float, columns: int | None = None) -> str:
    """One step: loss and its parts, learning rate, images/s, GiB, time left.

    To fit `columns`, the parts of the loss are left out first, then the learning rate.
    """
    metrics = event.metrics
    step = f"step {event.step:>{len(str(event.num_steps))}}/{event.num_steps}"
    loss = f"loss {metrics['loss']:.3f}"
    parts = f" (mask {metrics['loss_bce']:.3f} dice {metrics['loss_dice']:.3f} class {metrics['loss_class']:.3f})"
    if not (metrics["loss_bce"] or metrics["loss_dice"]):  # of the linear head, whose loss has one part
        parts = ""
    rate = f"lr {metrics['lr']:.1e}"
    rest = [f"{event.images_per_second:.3g} img/s"]
    if event.memory_bytes:
        rest.append(f"{gibibytes(event.memory_bytes):.1f} GiB")
    if seconds_per_step and event.step < event.num_steps:
        rest.append(f"{duration(seconds_per_step * (event.num_steps - event.step))} left")
    if event.skipped:
        rest.append("update skipped: not finite")
    lines = ["  ".join([step, *some, *rest]) for some in ([loss + parts, rate], [loss, rate], [loss])]
    return next((line for line in lines if columns is None or len(line) <= columns), lines[-1])


def evaluation_line(event: Evaluated) -> str:
    """One validation: mIoU and pixel accuracy in percent, and over how many images."""
    record = event.record
    miou = "no labelled pixel" if record.miou_percent is None else f"mIoU {record.miou_percent:.2f}"
    accuracy = "" if record.aacc_percent is None else f", accuracy {record.aacc_percent:.2f}"
    best = "  (best so far)" if event.best else ""
    scores = f"{miou}{record.mean_of}{accuracy}"
    return f"step {event.step}: {scores} on {record.num_images} {record.split} images of {record.data}{best}"


def duration(seconds: float) -> str:
    """The two largest units: `2d 3h`, `4h 05m`, `3m 07s`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour}h"
    return f"{hours}h {minute:02}m" if hours else f"{minutes}m {second:02}s"


def _minutes(seconds: float) -> str:
    """Minutes and seconds, e.g. `2:05`."""
    whole, rest = divmod(round(seconds), 60)
    return f"{whole}:{rest:02}"
