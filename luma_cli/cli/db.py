"""`luma db`: where the store is, what is in it, and how to move it."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from luma_cli.cli.options import Database, Json
from luma_cli.errors import StoreError

if TYPE_CHECKING:
    from luma_cli.store.transfer import MergeResult


app = typer.Typer(help="The store: one SQLite file with every number.", no_args_is_help=True, add_completion=False)


ExportView = Literal[
    "profiles", "attempts", "runs", "run_curves", "evaluations", "class_scores", "score_costs", "evidence"
]


@app.command()
def path(database: Database = None) -> None:
    """Print where the database is: --db, else $LUMA_DB, else the data folder.

    To browse it: datasette "$(luma db path)".
    """
    from luma_cli.store import database as files

    typer.echo(str(files.path(database)))


@app.command()
def info(database: Database = None, as_json: Json = False) -> None:
    """Print size, schema, counts and devices."""
    from luma_cli.report.table import print_json
    from luma_cli.store.inspection import info as describe

    found = describe(database)
    if as_json:
        print_json(
            {
                "schema": 1,
                "path": found.file,
                "bytes": found.bytes,
                "database_schema": found.schema,
                "journal": found.journal,
                "rows": found.rows,
                "by_status": found.by_status,
                "by_device": found.by_device,
                "first": found.first or None,
                "last": found.last or None,
            }
        )
        return
    if not found.schema:
        typer.echo(f"{found.file}: does not exist yet; `luma profile NAME` makes it")
        return
    typer.echo(f"{found.file}: {found.bytes:,} bytes, schema {found.schema}, {found.journal} journal")
    for title, counts in (("rows", found.rows), ("by status", found.by_status), ("by device", found.by_device)):
        typer.echo(f"{title}: " + (", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"))
    if found.first:
        typer.echo(f"from {found.first} to {found.last}")


@app.command()
def query(
    sql: Annotated[
        str,
        Argument(help="One SELECT; docs/reference/store.md has the views: profiles, runs, score_costs, ..."),
    ],
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Run one read-only SQL statement and print its rows."""
    from luma_cli.report.table import print_rows
    from luma_cli.store.inspection import query as ask

    with ask(sql, database) as answer:
        print_rows(answer.columns, answer.rows, sys.stdout, as_json)


@app.command()
def export(
    form: Annotated[Literal["csv", "json"], Option(help="csv or json.")] = "csv",
    view: Annotated[ExportView, Option(help="profiles: the latest of each configuration.")] = "profiles",
    database: Database = None,
) -> None:
    """Write a whole view to stdout."""
    from luma_cli.store import database as files
    from luma_cli.store.transfer import export as write

    connection = files.open_read(database)
    try:
        write(connection, sys.stdout, form, view)
    finally:
        if connection is not None:
            connection.close()


@app.command()
def backup(
    target: Annotated[Path, Argument(help="New file.")],
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a file that is there.")] = False,
    database: Database = None,
) -> None:
    """Copy the database, also while it is being written to."""
    from luma_cli.store.transfer import backup as copy

    typer.echo(f"wrote {copy(database, target, overwrite=overwrite)}")


@app.command()
def merge(
    others: Annotated[list[Path], Argument(help="Databases from other machines.")],
    database: Database = None,
) -> None:
    """Take in the rows of other databases; doing it twice, or in another order, gives the same."""
    from luma_cli.store import database as files
    from luma_cli.store.transfer import merge as take_in

    with closing(files.open_write(database)) as db:
        for other in others:
            merged = take_in(db, other)
            typer.echo(f"{merged.file}: {merged.added} added, {merged.known} known already{_trained(merged)}")


@app.command()
def check(database: Database = None) -> None:
    """Check integrity, foreign keys and content hashes; exit code 1 when something is wrong."""
    from luma_cli.store.inspection import check as inspect

    found = inspect(database)
    if found.problems:
        raise StoreError(f"{found.file}: {'; '.join(found.problems)}")
    trained = f"{found.runs:,} runs, {found.evaluations:,} evaluations"
    typer.echo(f"{found.file}: ok, schema {found.schema}, {found.attempts:,} attempts, {trained}")


def _trained(merged: MergeResult) -> str:
    """What came in besides attempts, if anything did."""
    trained = f"; {merged.runs} runs and {merged.evaluations} evaluations taken in"
    imported = f"; {merged.evidence} imported results taken in"
    return (trained if merged.runs or merged.evaluations else "") + (imported if merged.evidence else "")
