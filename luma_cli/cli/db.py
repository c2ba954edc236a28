"""`luma db`: where the store is, what is in it, and how to move it."""

from __future__ import annotations

import typer

app = typer.Typer(help="The store: one SQLite file with every number.", no_args_is_help=True)
