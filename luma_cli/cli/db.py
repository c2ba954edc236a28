"""`luma db`: look into the store, check it and move it."""

from __future__ import annotations

import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from luma_cli.cli.options import Database, Json
from luma_cli.errors import StoreError

app = typer.Typer(
    help="Database: path, info, query, export, backup, merge, check.",
    no_args_is_help=True,
    add_completion=False,
)


ExportView = Literal[
    "profiles", "attempts", "runs", "run_curves", "evaluations", "class_scores", "score_costs", "evidence"
]


@app.command()
def path(database: Database = None) -> None:
    """Print the path of the database: --db, else $LUMA_DB, else the data folder."""
    from luma_cli.store import database as files

    print(str(files.path(database)))


@app.command()
def info(database: Database = None, as_json: Json = False) -> None:
    """Print size, schema version, numbers of rows and devices."""
    from luma_cli.report.table import print_json
    from luma_cli.store.inspection import info as describe
    from luma_cli.to_json import to_json

    found = describe(database)
    if as_json:
        print_json({"schema": 1, **to_json(found)})
        return
    if not found.schema:
        print(f"{found.file}: does not exist yet; `luma profile NAME` makes it")
        return
    print(f"{found.file}: {found.bytes:,} bytes, schema {found.schema}, {found.journal} journal")
    for title, counts in (("rows", found.rows), ("by status", found.by_status), ("by device", found.by_device)):
        print(f"{title}: " + (", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"))
    if found.first:
        print(f"from {found.first} to {found.last}")


@app.command()
def query(
    sql: Annotated[
        str,
        Argument(help="One SELECT. docs/reference/store.md lists the views: profiles, runs, score_costs, ..."),
    ],
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Run one read-only SQL statement and print its rows.

    Example: luma db query "SELECT backbone, gmacs FROM profiles"
    """
    from luma_cli.report.table import print_rows
    from luma_cli.store.inspection import query as ask

    with ask(sql, database) as answer:
        print_rows(answer.columns, answer.rows, sys.stdout, as_json)


@app.command()
def export(
    form: Annotated[Literal["csv", "json"], Option(help="Format.")] = "csv",
    view: Annotated[ExportView, Option(help="View; profiles has the latest of each configuration.")] = "profiles",
    shareable: Annotated[
        bool, Option("--shareable", help="Leave out folders, host, user, GPU ids and a run's settings.")
    ] = False,
    database: Database = None,
) -> None:
    """Write a whole view to stdout."""
    from luma_cli.store import database as files
    from luma_cli.store.transfer import export as write

    connection = files.open_read(database)
    with nullcontext() if connection is None else closing(connection):
        write(connection, sys.stdout, form, view, shareable=shareable)


@app.command()
def backup(
    target: Annotated[Path, Argument(help="New file.")],
    overwrite: Annotated[bool, Option("--overwrite", help="Replace an existing file.")] = False,
    database: Database = None,
) -> None:
    """Copy the database, even while it is being written to."""
    from luma_cli.store.transfer import backup as copy

    print(f"wrote {copy(database, target, overwrite=overwrite)}")


@app.command()
def merge(
    others: Annotated[list[Path], Argument(help="Databases from other machines.")],
    database: Database = None,
) -> None:
    """Add the rows of other databases; rows that are here already are skipped."""
    from luma_cli.store import database as files
    from luma_cli.store.transfer import merge as take_in

    with closing(files.open_write(database)) as db:
        for other in others:
            merged = take_in(db, other)
            trained = f"; {merged.runs} runs and {merged.evaluations} evaluations added"
            said = f"{merged.file}: {merged.added} added, {merged.known} known already"
            said += trained if merged.runs or merged.evaluations else ""
            print(said + (f"; {merged.evidence} imported results added" if merged.evidence else ""))


@app.command()
def check(database: Database = None) -> None:
    """Check integrity, foreign keys and content hashes; exit code 1 for a problem."""
    from luma_cli.store.inspection import check as inspect

    found = inspect(database)
    if found.problems:
        raise StoreError(f"{found.file}: {'; '.join(found.problems)}")
    trained = f"{found.runs:,} runs, {found.evaluations:,} evaluations"
    print(f"{found.file}: ok, schema {found.schema}, {found.attempts:,} attempts, {trained}")
