"""`luma evidence`: the results behind every recommendation; list, import, export and remove them."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Argument, Option

from luma_cli.cli.options import Database, Json, ListUnlessNamed, Yes, can_ask, confirm, spread
from luma_cli.errors import NoAnswer, StoreError, UnknownName, UsageError

if TYPE_CHECKING:
    from luma_cli.evidence.evidence import Evidence, Selection
    from luma_cli.evidence.imported import MiouScale


app = typer.Typer(
    cls=ListUnlessNamed, help="Results: list, show, import, export, rm. Without a command: list.", add_completion=False
)

_PROVENANCES = {"own": "own run", "luma": "published LUMA", "other": "other head"}


@dataclass(frozen=True, slots=True)
class RowFilters:
    """Filters on results; all that are given must hold."""

    dataset: Annotated[str, Option(help="Only this dataset, e.g. ade20k.")] = ""
    head: Annotated[str, Option(help="Only this head, e.g. eomt.")] = ""
    backbone: Annotated[str, Option(help="Only backbones with this in their name.")] = ""
    pretraining: Annotated[str, Option(help="Only this objective, e.g. dinov2.")] = ""
    provenance: Annotated[
        Literal["own", "luma", "other"] | None, Option(help="Only own runs, published LUMA or other heads.")
    ] = None
    regime: Annotated[
        Literal["fine-tuned", "frozen"] | None, Option(help="Only fine-tuned backbones, or frozen ones.")
    ] = None
    source: Annotated[str, Option(help="Only results with this in their source.")] = ""
    doubtful: Annotated[bool | None, Option("--doubtful/--sound", help="Only doubtful results, or none of them.")] = (
        None
    )
    imported: Annotated[bool, Option("--imported", help="Only imported results.")] = False

    def selection(self) -> Selection:
        """The filters for `Selection.of`."""
        from luma_cli.evidence.evidence import Selection

        provenance = _PROVENANCES[self.provenance] if self.provenance else ""
        return Selection(**{**asdict(self), "provenance": provenance, "regime": self.regime or ""})


@app.command("list")
@spread
def list_evidence(
    filters: RowFilters,
    limit: Annotated[int, Option(min=0, help="How many rows of each dataset; 0 for all.")] = 15,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """List results: published ones, imported ones and your own finished runs.

    Example: luma evidence list --dataset ade20k --backbone dinov3
    """
    from luma_cli.evidence.table import load_evidence
    from luma_cli.report.evidence import print_evidence

    rows = load_evidence(database)
    print_evidence(filters.selection().of(rows), len(rows), limit, as_json)


@app.command()
def show(
    id: Annotated[str, Argument(help="Id of a result, as in the list.")],
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Show one result with its source."""
    from luma_cli.evidence.table import load_evidence
    from luma_cli.report.evidence import evidence_json, row_table
    from luma_cli.report.table import print_json, print_table

    rows = load_evidence(database)
    found = [row for row in rows if row.id == id]
    if not found:
        raise UnknownName(f"no result {id!r}; `luma evidence list --limit 0` shows their ids")
    if as_json:
        print_json(evidence_json(found, len(rows)))
    for row in () if as_json else found:
        print_table(row_table(row))


@app.command("import")
def import_file(
    file: Annotated[Path, Argument(help="CSV or JSON lines; docs/use/evidence.md lists the columns.")],
    scale: Annotated[
        Literal["percent", "fraction"] | None,
        Option(help="Unit of mIoU figures of at most 1; asked for where it matters."),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Check the file and write nothing.")] = False,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Import the results of a file and report rejected rows; exit code 1 when no row was accepted.

    A file with columns model, device, runtime, dtype, resolution, batch and ms is one of latencies.
    """
    from luma_cli.evidence.imported import examine, keep, read_file, unclear
    from luma_cli.evidence.table import load_evidence
    from luma_cli.report.evidence import print_import
    from luma_cli.speed.imported import is_latency_table

    if is_latency_table(file):
        _import_latencies(file, dry_run, database, as_json)
        return
    table = read_file(file)
    question = "" if scale else unclear(table)
    asked = _ask(question) if question and can_ask() else None
    found = examine(table, load_evidence(database), scale or asked)
    if not dry_run:
        keep(found, database)
    print_import(found, dry_run, as_json)
    if not found.rows:
        raise NoAnswer(f"{file}: no row was accepted" if found.records else f"{file} has a heading and no row below it")


def _import_latencies(file: Path, dry_run: bool, database: Path | None, as_json: bool) -> None:
    from luma_cli.report.table import print_json
    from luma_cli.speed.imported import examine_latencies, keep_latencies

    found = examine_latencies(file)
    num_new = 0 if dry_run or not found.rows else keep_latencies(found, database)
    if as_json:
        print_json({"schema": 1, "latencies": len(found.rows), "new": num_new, "refused": list(found.refused)})
    else:
        done = "checked" if dry_run else f"{num_new} new"
        print(f"{len(found.rows)} latencies ({done}), {len(found.refused)} refused")
    for line in () if as_json else found.refused:
        print(f"refused: {line}", file=sys.stderr)
    if not found.rows:
        raise NoAnswer(f"{file}: no row was accepted")


def _ask(question: str) -> MiouScale:
    print(f"{question}.", file=sys.stderr)
    while True:
        answer = typer.prompt("Are these figures `fraction` or `percent`?", err=True).strip().lower()
        if answer in ("fraction", "fractions", "f"):
            return "fraction"
        if answer in ("percent", "p", "%"):
            return "percent"


@app.command()
@spread
def export(
    out: Annotated[Path | None, Option(help="File to write. \\[default: stdout]")] = None,
    *,
    filters: RowFilters,
    database: Database = None,
) -> None:
    """Write results as CSV that `luma evidence import` can read back."""
    from luma_cli import files
    from luma_cli.evidence.table import load_evidence, load_imported
    from luma_cli.report.evidence import evidence_csv

    as_they_came = {row.id: row for row in load_imported(database)}
    found = [as_they_came.get(row.id, row) for row in filters.selection().of(load_evidence(database))]
    text = evidence_csv(found)
    if out is None:
        print(text, end="")
        return
    try:
        files.write_text(out, text)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error.strerror or error}; name another file") from error
    print(f"wrote {len(found)} results to {out}")


@app.command()
def rm(
    ids: Annotated[list[str] | None, Argument(help="Ids of imported results, as in the list.")] = None,
    source: Annotated[str, Option(help="All imported results of exactly this source.")] = "",
    yes: Yes = False,
    database: Database = None,
) -> None:
    """Remove imported results, by id or by source."""
    from luma_cli.evidence.imported import remove
    from luma_cli.evidence.table import load_imported

    found = _to_remove(load_imported(database), ids or [], source)
    what = f"{len(found)} imported results" if len(found) > 1 else f"the imported result {found[0].id}"
    if not yes:
        confirm(f"remove {what}?", f"this removes {what}; add --yes to go ahead")
    remove(found, database)
    print(f"removed {what}")


def _to_remove(rows: list[Evidence], ids: list[str], source: str) -> list[Evidence]:
    if not ids and not source:
        raise UsageError("nothing is named; give ids or --source, `luma evidence list --imported` shows them")
    known = {row.id for row in rows}
    if unknown := [id for id in ids if id not in known]:
        raise UnknownName(f"no imported result {unknown[0]!r}; `luma evidence list --imported` shows them")
    found = [row for row in rows if row.id in ids or (source and row.source == source)]
    if not found:
        sources = ", ".join(repr(each) for each in dict.fromkeys(row.source for row in rows)) or "there are none"
        raise UnknownName(f"no imported result of source {source!r}; sources: {sources[:200]}")
    return found
