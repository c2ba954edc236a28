"""Whether questions may be asked at all: never without a terminal on both sides, never in a CI job."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import TextIO

MISSING = (
    "luma alone asks questions with questionary, which is not installed; pip install questionary, "
    "or ask without it: luma recommend --budget 200gflops"
)
_NO_TERMINAL = frozenset({"", "dumb", "unknown"})
_OFF = frozenset({"", "0", "false", "no"})


def can_ask(
    stdin: TextIO | None = None, stdout: TextIO | None = None, variables: Mapping[str, str] = os.environ
) -> bool:
    """Whether there is someone to ask: both streams are terminals that can be drawn on, and no CI job runs us."""
    if variables.get("TERM", "").lower() in _NO_TERMINAL or variables.get("CI", "").lower() not in _OFF:
        return False
    return _is_terminal(stdin or sys.stdin) and _is_terminal(stdout or sys.stdout)


def is_installed() -> bool:
    """Whether the library that asks is there."""
    return importlib.util.find_spec("questionary") is not None


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False
