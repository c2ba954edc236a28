"""Lines from a pipe, read with a deadline; the reader sleeps in the kernel until something arrives."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

# A profile with all raw samples is well under 1 MiB; more without a newline is not one of ours.
LONGEST_LINE = 64 * 2**20


class LineTooLong(Exception):
    """The other side writes something that is not a line."""


class Channel:
    """Reads whole lines from a file descriptor."""

    def __init__(self, descriptor: int, clock: Callable[[], float]):
        self._descriptor = descriptor
        self._clock = clock
        self._pending = b""

    def read_line(self, deadline: float) -> bytes | None:
        """The next line without its end, or None at the end of the stream.

        Raises TimeoutError when `deadline`, on the channel's clock, passes first, and LineTooLong.
        """
        while b"\n" not in self._pending:
            if len(self._pending) > LONGEST_LINE:
                raise LineTooLong
            self._wait(deadline)
            data = os.read(self._descriptor, 1 << 16)
            if not data:
                return None
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _wait(self, deadline: float) -> None:
        """Sleep until there is something to read."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        remaining = deadline - self._clock()
        if remaining <= 0 or not poll.poll(min(remaining * 1e3, 2**31 - 1)):
            raise TimeoutError
