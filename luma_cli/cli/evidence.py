"""`luma evidence`: the results that every recommendation stands on; take in more, take them out, write them down."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luma_cli.cli.options import Database, Json, ListUnlessNamed
from luma_cli.errors import NoAnswer, StoreError, UnknownName, UsageError

if TYPE_CHECKING:
    from luma_cli.evidence.evidence import Evidence, Selection
    from luma_cli.evidence.imported import MiouScale, Unclear


app = typer.Typer(
    cls=ListUnlessNamed, help="Results: list, show, import, export, rm. Without a command: list.", add_completion=False
)


class Provenance(StrEnum):
    """Whose results."""

    own = "own"
    luma = "luma"
    other = "other"


class Regime(StrEnum):
    """Whether the backbone was trained."""

    fine_tuned = "fine-tuned"
    frozen = "frozen"


class Scale(StrEnum):
    """What mIoU figures of at most 1 are."""

    percent = "percent"
    fraction = "fraction"


_PROVENANCES = {"own": "own run", "luma": "published LUMA", "other": "other head"}

Dataset = Annotated[str, typer.Option("--dataset", help="Only results on this dataset, e.g. ade20k.")]
HeadName = Annotated[str, typer.Option("--head", help="Only results with this head, e.g. eomt.")]
Backbone = Annotated[str, typer.Option("--backbone", help="Only backbones with this in their name.")]
Pretraining = Annotated[str, typer.Option("--pretraining", help="Only this objective, e.g. dinov2.")]
From = Annotated[Provenance | None, typer.Option("--provenance", help="Only own runs, published LUMA or other heads.")]
InRegime = Annotated[Regime | None, typer.Option("--regime", help="Only fine-tuned backbones, or frozen ones.")]
Source = Annotated[str, typer.Option("--source", help="Only results with this in their source.")]
Doubtful = Annotated[bool | None, typer.Option("--doubtful/--sound", help="Only rows that are doubtful, or are not.")]
ImportedOnly = Annotated[bool, typer.Option("--imported", help="Only imported results.")]


@app.command("list")
def list_evidence(
    dataset: Dataset = "",
    head: HeadName = "",
    backbone: Backbone = "",
    pretraining: Pretraining = "",
    provenance: From = None,
    regime: InRegime = None,
    source: Source = "",
    doubtful: Doubtful = None,
    imported: ImportedOnly = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many rows of each dataset; 0 for all.")] = 15,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """List results: published ones, imported ones and your own finished runs."""
    from luma_cli.evidence.table import load_evidence
    from luma_cli.report.evidence import evidence_json, evidence_tables
    from luma_cli.report.table import print_table

    asked = _selection(dataset, head, backbone, pretraining, provenance, regime, source, doubtful, imported)
    rows = load_evidence(database)
    found = asked.of(rows)
    if as_json:
        typer.echo(json.dumps(evidence_json(found, len(rows)), indent=1, allow_nan=False))
    else:
        for table in evidence_tables(found, limit):
            print_table(table)


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="Id of a row, as the list shows it.")],
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of one row, with its source."""
    from luma_cli.evidence.table import load_evidence
    from luma_cli.report.evidence import evidence_json, row_table
    from luma_cli.report.table import print_table

    rows = load_evidence(database)
    found = [row for row in rows if row.id == id]
    if not found:
        raise UnknownName(f"no result {id!r}; `luma evidence list --limit 0` shows their ids")
    if as_json:
        typer.echo(json.dumps(evidence_json(found, len(rows)), indent=1, allow_nan=False))
    for row in () if as_json else found:
        print_table(row_table(row))


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="CSV, or JSON lines; docs/evidence.md has the columns.")],
    scale: Annotated[
        Scale | None, typer.Option("--scale", help="What mIoU figures of at most 1 are; asked where it matters.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and write nothing.")] = False,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Take in the results of a file. Says which rows it rejected and why; exit code 1 when none was accepted."""
    from luma_cli.evidence.imported import examine, keep, read_file, unclear
    from luma_cli.evidence.table import load_evidence
    from luma_cli.report.evidence import import_json, import_lines

    table = read_file(file)
    question = None if scale else unclear(table)
    asked = _ask(question) if question and sys.stdin.isatty() and sys.stderr.isatty() else None
    found = examine(table, load_evidence(database), scale.value if scale else asked)
    if not dry_run:
        keep(found, database)
    if as_json:
        typer.echo(json.dumps(import_json(found, dry_run), indent=1, allow_nan=False))
    else:
        typer.echo("\n".join(import_lines(found, dry_run)))
    if not found.rows:
        raise NoAnswer(f"{file}: no row was accepted" if found.records else f"{file} has a heading and no row below it")


@app.command()
def export(
    out: Annotated[Path | None, typer.Option("--out", help="File to write; stdout unless given.")] = None,
    dataset: Dataset = "",
    head: HeadName = "",
    backbone: Backbone = "",
    pretraining: Pretraining = "",
    provenance: From = None,
    regime: InRegime = None,
    source: Source = "",
    doubtful: Doubtful = None,
    imported: ImportedOnly = False,
    database: Database = None,
) -> None:
    """Write results as CSV that `luma evidence import` reads back as it is."""
    from luma_cli import files
    from luma_cli.evidence.table import load_evidence, load_imported
    from luma_cli.report.evidence import evidence_csv

    asked = _selection(dataset, head, backbone, pretraining, provenance, regime, source, doubtful, imported)
    as_they_came = {row.id: row for row in load_imported(database)}
    found = [as_they_came.get(row.id, row) for row in asked.of(load_evidence(database))]
    text = evidence_csv(found)
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        files.write_text(out, text)
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error.strerror or error}; name another file") from error
    typer.echo(f"wrote {len(found)} results to {out}")


@app.command()
def rm(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of imported rows, as the list shows them.")] = None,
    source: Annotated[str, typer.Option("--source", help="Every imported row of exactly this source.")] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database: Database = None,
) -> None:
    """Take imported results out again, by id or by source."""
    from luma_cli.evidence.imported import remove
    from luma_cli.evidence.table import load_imported

    found = _to_remove(load_imported(database), ids or [], source)
    what = f"{len(found)} imported results" if len(found) > 1 else f"the imported result {found[0].id}"
    if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"this removes {what}; add --yes to go ahead")
    if not yes and not typer.confirm(f"remove {what}?", err=True):
        raise typer.Abort
    remove(found, database)
    typer.echo(f"removed {what}")


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


def _ask(question: Unclear) -> MiouScale:
    """What figures of at most 1 are, by the user."""
    typer.echo(f"{question.text}.", err=True)
    while True:
        answer = typer.prompt("Are these figures `fraction` or `percent`?", err=True).strip().lower()
        if answer in ("fraction", "fractions", "f"):
            return "fraction"
        if answer in ("percent", "p", "%"):
            return "percent"


def _selection(
    dataset: str,
    head: str,
    backbone: str,
    pretraining: str,
    provenance: Provenance | None,
    regime: Regime | None,
    source: str,
    doubtful: bool | None,
    imported: bool,
) -> Selection:
    from luma_cli.evidence.evidence import Selection

    return Selection(
        dataset=dataset,
        head=head,
        backbone=backbone,
        pretraining=pretraining,
        provenance=_PROVENANCES[provenance.value] if provenance else "",
        regime=regime.value if regime else "",
        source=source,
        doubtful=doubtful,
        imported=imported,
    )
