"""Progress of a sweep on stderr: redrawn only when something happened, so that nothing spins beside a measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from luma_cli.units import gibibytes

if TYPE_CHECKING:
    from luma_cli.measure.sweep import Event
    from luma_cli.store.records import Profile
    from luma_cli.train.events import Evaluated, Evaluating, Started, Stepped
    from luma_cli.train.events import Event as TrainingEvent

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Callable that takes the sweep's events. One status line on a terminal, one line per result elsewhere."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._live = file.isatty()
        self._kept = 0
        self._weights = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        if self._kept and kind is None:
            print(f"{self._kept} already measured; --again measures anew", file=self._file)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "kept":
            self._kept += 1
        elif event.kind == "stage":
            self._status(f"{_where(event)}: {event.text}{_eta(event)}")
        elif event.profile is not None:
            self._clear()
            self._tell_weights(weights_line(event.profile))
            print(f"{_where(event)}: {summary(event.profile)}", file=self._file, flush=True)

    def _tell_weights(self, line: str) -> None:
        """Say which file was loaded and how, once for every way of it."""
        if line and line != self._weights:
            print(line, file=self._file, flush=True)
        self._weights = line or self._weights

    def _status(self, text: str) -> None:
        if self._live:
            print(f"\r\x1b[2K{text[:79]}", end="", file=self._file, flush=True)

    def _clear(self) -> None:
        if self._live:
            print("\r\x1b[2K", end="", file=self._file, flush=True)


class Countdown:
    """How many of `total` are done and about how long the rest takes, to be called after each. done: what they are."""

    def __init__(
        self, file: TextIO, total: int, clock: Callable[[], float] = time.monotonic, done: str = "counted"
    ) -> None:
        self._word = done
        self._file = file
        self._live = file.isatty()
        self._total = total
        self._clock = clock
        self._start = self._said = clock()
        self._done = 0

    def __call__(self, number: int = 1) -> None:
        """So many more are done: redraw on a terminal, else a line every ten seconds and at the end."""
        self._done += number
        now, last = self._clock(), self._done == self._total
        if not (self._live or last or now - self._said >= _SECONDS_BETWEEN_LINES):
            return
        self._said = now
        left = (now - self._start) / self._done * (self._total - self._done)
        spent = _minutes(now - self._start)
        text = f"luma: {self._word} {self._done} of {self._total} in {spent}, about {_minutes(left)} left"
        end = "\n" if last or not self._live else ""
        print(("\r\x1b[2K" if self._live else "") + text, end=end, file=self._file, flush=True)


def summary(profile: Profile) -> str:
    """One line about a finished profile."""
    if profile.status != "ok":
        return f"{profile.status}: {profile.reason}"
    parts = []
    if throughput := profile.metrics.get("throughput"):
        parts.append(f"{throughput.median:.4g} img/s at batch {profile.batch}")
    if latency := profile.metrics.get("latency_eager"):
        parts.append(f"{latency.median:.4g} ms")
    for name in ("memory_device", "memory_allocated"):
        if name in profile.metrics:
            parts.append(f"{gibibytes(profile.metrics[name].median):.2f} GiB")
            break
    return ", ".join(parts) or "ok"


def weights_line(profile: Profile) -> str:
    """The file that a profile's weights came from, its SHA-256 and what was changed; empty for random weights."""
    loaded = profile.notes.get("weights")
    if not loaded:
        return ""
    changes = "; ".join(loaded["conversions"]) or "unchanged"
    return f"weights {loaded['source']} (SHA-256 {loaded['sha256']}): {changes}"


def _where(event: Event) -> str:
    configuration = event.configuration
    return f"[{event.index + 1}/{event.total}] {configuration.backbone} at {configuration.resolution} px"


def _eta(event: Event) -> str:
    if event.eta_seconds is None:
        return ""
    return f" (about {_minutes(event.eta_seconds)} left)"


def _minutes(seconds: float) -> str:
    """Minutes and seconds, e.g. `2:05`."""
    whole, rest = divmod(round(seconds), 60)
    return f"{whole}:{rest:02}"


_SECONDS_BETWEEN_DRAWINGS = 0.2


class ImageProgress:
    """To be called with images done and all images, after each; the last call ends the line."""

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._live = file.isatty()
        self._clock = clock
        self._start = self._said = clock()

    def __call__(self, done: int, total: int) -> None:
        """Redraw, or print a line, unless the last time is short ago."""
        now, last = self._clock(), done == total
        if not last and now - self._said < (_SECONDS_BETWEEN_DRAWINGS if self._live else _SECONDS_BETWEEN_LINES):
            return
        self._said = now
        rate = done / max(now - self._start, 1e-9)
        text = f"{done:,} of {total:,} images, {rate:.3g} images/s, {_minutes((total - done) / rate)} left"
        end = "\n" if last or not self._live else ""
        print(("\r\x1b[2K" if self._live else "") + text, end=end, file=self._file, flush=True)


_SECONDS_BETWEEN_TRAINING_LINES = 30.0
_SMOOTHING = 0.1  # weight of the newest step in the rate


class TrainingProgress:
    """Callable that takes a training's events."""

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=file, highlight=False, soft_wrap=True)
        self._is_live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._clock = clock
        self._said = float("-inf")
        self._rate = 0.0  # seconds per step, smoothed
        self._last: tuple[int, float] | None = None

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_live:
            self._live.stop()

    def __call__(self, event: TrainingEvent) -> None:
        """Show one event."""
        from luma_cli.train import events

        match event:
            case events.Started():
                self._started(event)
            case events.Stepped():
                self._stepped(event)
            case events.Evaluating():
                self._evaluating(event)
            case events.Evaluated():
                self._evaluated(event)
            case events.Saved():
                self._last = None  # writing is no training
            case events.Noted():
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
            self._status(step_line(event, self._rate, self._console.width if self._is_live else None), last)

    def _evaluating(self, event: Evaluating) -> None:
        if self._is_live and self._due(self._clock(), event.done == event.total):
            self._status(f"step {event.step}: validating {event.done}/{event.total}")

    def _evaluated(self, event: Evaluated) -> None:
        self._last = None
        self._clear()
        self._print(evaluation_line(event))

    def _due(self, now: float, last: bool) -> bool:
        between = _SECONDS_BETWEEN_DRAWINGS if self._is_live else _SECONDS_BETWEEN_TRAINING_LINES
        if not last and now - self._said < between:
            return False
        self._said = now
        return True

    def _status(self, text: str, last: bool = False) -> None:
        if self._is_live and not last:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self._clear()
            self._print(text)

    def _clear(self) -> None:
        """Take the live line away: what it says is over."""
        if self._is_live:
            self._live.update(Text(""), refresh=True)

    def _print(self, text: str) -> None:
        self._console.print(Text(text))


def step_line(event: Stepped, seconds_per_step: float, columns: int | None = None) -> str:
    """One step: loss and its parts, learning rate, speed, memory, time left.

    With fewer `columns` than that takes the parts of the loss are left out, and then the learning rate.
    """
    metrics = event.metrics
    step = f"step {event.step:>{len(str(event.num_steps))}}/{event.num_steps}"
    loss = f"loss {metrics['loss']:.3f}"
    parts = f" (mask {metrics['loss_bce']:.3f} dice {metrics['loss_dice']:.3f} class {metrics['loss_class']:.3f})"
    rate = f"lr {metrics['lr']:.1e}"
    rest = [f"{event.images_per_second:.3g} img/s"]
    if event.memory_bytes:
        rest.append(f"{gibibytes(event.memory_bytes):.1f} GiB")
    if seconds_per_step and event.step < event.num_steps:
        rest.append(f"{duration(seconds_per_step * (event.num_steps - event.step))} left")
    if event.skipped:
        rest.append("update left out: not finite")
    shorter = ([loss + parts, rate], [loss, rate], [loss])
    lines = ["  ".join([step, *some, *rest]) for some in shorter]
    return next((line for line in lines if columns is None or len(line) <= columns), lines[-1])


def evaluation_line(event: Evaluated) -> str:
    """One validation: mIoU, pixel accuracy, over how many images."""
    record = event.record
    miou = "no labelled pixel" if record.miou_percent is None else f"mIoU {record.miou_percent:.2f}"
    accuracy = "" if record.aacc_percent is None else f", accuracy {record.aacc_percent:.2f}"
    best = "  (best so far)" if event.best else ""
    return f"step {event.step}: {miou}{accuracy} on {record.num_images} {record.split} images of {record.data}{best}"


def duration(seconds: float) -> str:
    """Days, hours, minutes and seconds, the two largest that matter: `2d 3h`, `4h 05m`, `3m 07s`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d {hour}h"
    if hours:
        return f"{hours}h {minute:02}m"
    return f"{minutes}m {second:02}s"
