"""A command of luma run to its end, shown before it starts."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from luma_cli.cli.guided.command_line import spelled

_INTERRUPTED = 130


def run_luma(arguments: Sequence[str]) -> int:
    """Show and run a command; its exit code. It gets the signals that are meant for us, so that it can save.

    Raises KeyboardInterrupt when it was stopped by Ctrl-C.
    """
    from luma_cli.train.launch import handing_on

    print(f"\n$ {spelled(arguments)}")
    code = handing_on([sys.executable, "-P", "-m", "luma_cli", *arguments])
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        print(f"(exit code {code})")
    return code
