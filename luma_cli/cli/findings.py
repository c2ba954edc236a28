"""`luma findings`: the benchmark's claims, each tested on the evidence at hand."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from luma_cli.cli.options import Database, Dataset, EvidenceDataset, Json


def findings(
    dataset: EvidenceDataset = Dataset.ade20k,
    device: Annotated[
        str | None, typer.Option("--device", help="Device of measured claims: cpu, cuda or part of its name.")
    ] = None,
    claim: Annotated[list[str] | None, typer.Option("--claim", help="Name of a claim; may repeat.")] = None,
    rows: Annotated[bool, typer.Option("--rows", help="List every row of evidence behind each claim.")] = False,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Test the paper's claims on published results, your own runs and your profiles.

    Each has a verdict (supported, contradicted, not enough evidence) by a rule fixed beforehand, its numbers with 90%
    intervals, the rows behind them, and the commands that would settle it.
    """
    from luma_cli.findings.api import findings as answer
    from luma_cli.report.findings import print_findings

    found = answer(dataset.value, claims=claim or (), device=device, database=database)
    if as_json:
        typer.echo(json.dumps(found.to_json(rows), indent=1, allow_nan=False))
    else:
        print_findings(found, rows)
