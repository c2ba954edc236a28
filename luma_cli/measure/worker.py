"""The process that measures and counts: reads options and jobs on stdin, writes messages to the pipe named `--events`.

It dies with its parent: a thread sleeps in a read of stdin and ends the process when stdin closes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

from luma_cli.errors import LumaError
from luma_cli.measure import imports
from luma_cli.measure.cost import CountJob, Refusal
from luma_cli.measure.runner import Options, Result, Stage, dump, load
from luma_cli.store.records import Configuration

ORPHANED = 75  # EX_TEMPFAIL


def main(arguments: Sequence[str]) -> None:
    """Answer one job after the other, until stdin closes."""
    events = int(arguments[arguments.index("--events") + 1])

    def send(message: Any) -> None:
        data = dump(message)
        while data:
            data = data[os.write(events, data) :]

    lines: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(lines.put,), daemon=True).start()
    options = load(lines.get(), (Options,))
    send(Stage("importing torch"))
    refused = prepare(options)
    while True:
        send(answer(load(lines.get(), (Configuration, CountJob)), options, refused, lambda text: send(Stage(text))))


def _listen(put: Callable[[bytes], None]) -> None:
    with open(0, "rb", closefd=False) as stdin:
        for line in stdin:
            put(line)
    os._exit(ORPHANED)  # whatever the main thread is doing: nobody waits for its answer


def prepare(options: Options) -> Refusal | None:
    """Import own backbones and set the threads. A failed import is a refusal of every job."""
    for item in options.imports:
        try:
            imports.load(item)
        except LumaError as error:
            return Refusal.of(error)
        except Exception as error:  # the user's module may raise anything
            return Refusal("UsageError", f"--import {item.target} failed: {type(error).__name__}: {error}")
    # torch and timm take seconds to import: only here, so that a wrong --import is refused at once
    import torch

    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    return None


def answer(job: Configuration | CountJob, options: Options, refused: Refusal | None, say: Callable[[str], None]) -> Any:
    """The Result of a configuration; facts, a cost or a refusal of a count."""
    if isinstance(job, CountJob):
        from luma_cli.measure.facts import answer as count

        return refused or count(job)
    if refused:
        return Result("failed", refused.message.partition("\n")[0])
    from luma_cli.measure import session

    return session.attempt(job, options, say)


if __name__ == "__main__":
    main(sys.argv[1:])
