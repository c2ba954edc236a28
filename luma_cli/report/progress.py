"""Progress of a sweep on stderr: redrawn only when something happened, so that nothing spins beside a measurement."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from luma_cli.units import gibibytes

if TYPE_CHECKING:
    from luma_cli.measure.sweep import Event
    from luma_cli.store.records import Profile


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
