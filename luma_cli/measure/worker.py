"""The process that measures and counts: reads options and jobs on stdin, writes messages to the pipe named `--events`.

It dies with its parent: a thread sleeps in a read of stdin, whose end means that nobody waits for the answers.
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
    """Answer one job after the other, for as long as the parent is there."""
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
    """Hand on every line of stdin; once it ends, end the process at once."""
    with open(0, "rb", closefd=False) as stdin:
        for line in stdin:
            put(line)
    os._exit(ORPHANED)


def prepare(options: Options) -> Refusal | None:
    """Set up the process: one's own backbones, threads. Returns the refusal that a failed import is for every job."""
    for item in options.imports:
        try:
            imports.load(item)
        except LumaError as error:
            return Refusal(type(error).__name__, str(error))
        except Exception as error:  # whatever the user's module raises is the user's to read
            return Refusal("UsageError", f"--import {item.target} failed: {type(error).__name__}: {error}")
    # torch and timm take seconds to import: only here, so that a wrong --import is refused at once
    import torch

    if options.num_threads:
        torch.set_num_threads(options.num_threads)
    return None


def answer(job: Configuration | CountJob, options: Options, refused: Refusal | None, say: Callable[[str], None]) -> Any:
    """The Result of a configuration; facts, a cost or a refusal for a count."""
    if isinstance(job, CountJob):
        if refused:
            return refused
        from luma_cli.measure.facts import answer as count

        return count(job)
    if refused:
        return Result("failed", refused.message.partition("\n")[0])
    from luma_cli.measure import session

    return session.attempt(job, options, say)


if __name__ == "__main__":
    main(sys.argv[1:])
