"""Asks before a glob starts work on hundreds of backbones; never asks without a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import UsageError

# More than this many backbones from one command is rarely meant.
MANY = 20


def confirm_many(specs: Sequence[BackboneSpec], num_resolutions: int, yes: bool) -> None:
    """Ask whether to go on with more than MANY backbones. Without a terminal: UsageError naming `--yes`."""
    if len(specs) <= MANY or yes:
        return
    what = f"{len(specs)} backbones x {num_resolutions} resolutions ({specs[0].name} ... {specs[-1].name})"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{what}: more than {MANY}; narrow the pattern, or add --yes to go ahead")
    if not typer.confirm(f"{what}: go ahead?", err=True):
        raise typer.Abort
