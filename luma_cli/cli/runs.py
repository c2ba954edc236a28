"""`luma runs`: trainings, how they stand, what they reached."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luma_cli.cli.command import ListUnlessNamed
from luma_cli.cli.options import Csv, Database, Json, one_form
from luma_cli.errors import UsageError

if TYPE_CHECKING:
    from luma_cli.report.run_comparison import Compared
    from luma_cli.train.find_run import FoundRun

Run = Annotated[str, typer.Argument(help="Id of a run, the start of one, `latest`, or the path of a run folder.")]
Runs = Annotated[list[str], typer.Argument(help="Runs, each as an id, the start of one, `latest` or a path.")]


app = typer.Typer(cls=ListUnlessNamed, help="Trainings: list, show, compare, rm. Without a command: list.")


@app.command("list")
def list_runs(database: Database = None, as_json: Json = False, as_csv: Csv = False) -> None:
    """List all runs, the newest last, with the best mIoU of each."""
    from luma_cli.report.runs import print_runs
    from luma_cli.train.standing import standings

    one_form(as_json, as_csv)
    print_runs(standings(database), sys.stdout, as_json=as_json, as_csv=as_csv)


@app.command()
def show(
    run: Run,
    classes: Annotated[bool, typer.Option("--classes", help="Every class of the latest evaluation.")] = False,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Show one run: settings, curves, evaluations, cost of the same model."""
    from luma_cli.report import run_sheet
    from luma_cli.report.table import print_table
    from luma_cli.train.checkpoints import names
    from luma_cli.train.find_run import find_run
    from luma_cli.train.standing import standing

    found = find_run(run, database)
    one, config = standing(found, database), _config(found)
    checkpoints = names(found.folder) if found.folder else []
    curves, evaluations, costs = _kept(found.run_id, database)
    if as_json:
        sheet = run_sheet.sheet_json(one, config, checkpoints, curves, evaluations, costs)
        typer.echo(json.dumps(sheet, indent=1, allow_nan=False))
        return
    print_table(run_sheet.facts_table(one, config, checkpoints))
    if curves:
        print_table(run_sheet.curves_table(curves, plain=not _knows_blocks()))
    if evaluations:
        print_table(run_sheet.evaluations_table(evaluations))
    if any(row["device_name"] for row in costs):
        print_table(run_sheet.costs_table(costs))
    if classes and evaluations:
        print_table(run_sheet.classes_table(evaluations[-1]))


@app.command()
def compare(runs: Runs, database: Database = None, as_json: Json = False) -> None:
    """Put runs side by side: what they reached and in which settings they differ."""
    from luma_cli.report import run_comparison
    from luma_cli.report.table import print_table
    from luma_cli.train.find_run import find_run

    found = {one.run_id: one for one in (find_run(run, database) for run in runs)}
    if len(found) < 2:
        raise UsageError(f"{len(found)} run is given, expected two or more; `luma runs list` shows all")
    compared = [_compared(one, database) for one in found.values()]
    for caution in run_comparison.cautions(compared):
        print(f"luma: the numbers cannot be compared as they are: {caution}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps(run_comparison.comparison_json(compared), indent=1, allow_nan=False))
    else:
        print_table(run_comparison.comparison_table(compared))


@app.command()
def rm(
    runs: Runs,
    files: Annotated[bool, typer.Option("--files", help="The run folder with its checkpoints, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database: Database = None,
) -> None:
    """Remove runs with their curves and evaluations from the database."""
    from luma_cli.train.find_run import find_run
    from luma_cli.train.removal import remove_run

    found = {one.run_id: one for one in (find_run(run, database) for run in runs)}
    for one in found.values():
        what = _what(one, files)
        if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"this removes {what}; add --yes to go ahead")
        if not yes and not typer.confirm(f"remove {what}?", err=True):
            raise typer.Abort
    for one in found.values():
        remove_run(one, database, files=files)
        typer.echo(f"removed {_what(one, files)}")


def _what(found: FoundRun, files: bool) -> str:
    folder = f" and {found.folder.path}" if files and found.folder else ""
    return f"run {found.run_id} from the database{folder}"


def _config(found: FoundRun) -> dict[str, Any]:
    """As in config.json."""
    if found.record is not None:
        return found.record.config
    return found.folder.config().to_json() if found.folder else {}


def _kept(run_id: str, database: Path | None) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Curves, evaluations and costs of a run in the database."""
    from luma_cli.report.run_sheet import COSTS
    from luma_cli.store import database as files
    from luma_cli.store.profiles import select_rows
    from luma_cli.store.runs import curves, evaluations

    connection = files.open_read(database)
    if connection is None:
        return {}, [], []
    try:
        rows = select_rows(connection, COSTS, view="score_costs", run_id=run_id)
        costs = [dict(zip(COSTS, row, strict=True)) for row in dict.fromkeys(rows)]
        return curves(connection, run_id), evaluations(connection, run_id), costs
    finally:
        connection.close()


def _compared(found: FoundRun, database: Path | None) -> Compared:
    from luma_cli.report.run_comparison import Compared
    from luma_cli.train.standing import standing

    _, evaluations, _ = _kept(found.run_id, database)
    return Compared(standing(found, database), _config(found), evaluations[-1] if evaluations else None)


def _knows_blocks() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")
