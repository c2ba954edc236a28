"""The process that measures: reads one request on stdin, writes messages to the pipe named by `--events`, ends.

It dies with its parent: a thread sleeps in a read of stdin, whose end means that nobody waits for the results.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

from luma_cli.measure.messages import dump_result, load_request

ORPHANED = 75  # EX_TEMPFAIL


def main(arguments: Sequence[str]) -> None:
    """Measure what the request asks for and send each result as soon as it is known."""
    events = int(arguments[arguments.index("--events") + 1])
    request = _read_line(0)
    if not request:
        return
    threading.Thread(target=_die_with_parent, args=(0,), daemon=True).start()
    configurations, options = load_request(request)

    def say(index: int, stage: str) -> None:
        _send(events, {"kind": "stage", "stage": stage})

    say(0, "importing torch")
    from luma_cli.measure import session

    for result in session.attempt_all(configurations, options, say):
        _send(events, {"kind": "result", "result": dump_result(result)})


def _read_line(descriptor: int) -> bytes:
    """One line, read without Python's buffers: the watching thread shares the descriptor."""
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(descriptor, 1 << 16)
        if not data:
            return b""
        line += data
    return line


def _die_with_parent(descriptor: int) -> None:
    """Sleep until stdin ends, then end the process at once."""
    while os.read(descriptor, 1 << 10):
        continue
    os._exit(ORPHANED)


def _send(descriptor: int, message: dict[str, Any]) -> None:
    """Write one message as a line."""
    data = json.dumps(message, allow_nan=False).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main(sys.argv[1:])
