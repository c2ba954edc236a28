"""Progress over images, on stderr: one line that is redrawn on a terminal, else a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

_SECONDS_BETWEEN_LINES = 10.0
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


def _minutes(seconds: float) -> str:
    whole, rest = divmod(round(seconds), 60)
    return f"{whole}:{rest:02}"
