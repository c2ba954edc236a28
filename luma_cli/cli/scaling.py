"""`luma scaling`: how error falls with size and resolution, and how to spend more compute."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from luma_cli.cli.options import (
    Convention,
    CurveDataset,
    Database,
    Family,
    Flops,
    Head,
    HeadName,
    Json,
    OwnOnly,
    Pretraining,
)
from luma_cli.errors import UsageError

_DESIGNS = (9, 16)


def scaling(
    dataset: CurveDataset = "ade20k",
    family: Family = "",
    pretraining: Pretraining = "",
    own_only: OwnOnly = False,
    start: Annotated[
        str,
        typer.Option(
            "--from", help="Model that exponents and --more are for, as vit_b.dinov3@512; else one of --family."
        ),
    ] = "",
    more: Annotated[
        float | None, typer.Option("--more", help="How many times the compute of --from there is, e.g. 10.")
    ] = None,
    num_runs: Annotated[int, typer.Option("--runs", help="Size of the design that is listed: 9 or 16.")] = 9,
    head: HeadName = Head.luma,
    convention: Flops = Convention.mac,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Fit the scaling law of error in size and resolution, and say how to spend compute.

    Exponents are printed with their 90% interval where the results tell them; where not, the paper's are shown as the
    paper's, with the runs that would tell.
    """
    from luma_cli.advise.scaling_api import scaling as answer_scaling
    from luma_cli.advise.scaling_api import spend
    from luma_cli.report.scaling import print_scaling
    from luma_cli.scaling.next_model import check_factor

    if more is not None:
        check_factor(more)
    if num_runs not in _DESIGNS:
        raise UsageError(f"--runs is {num_runs}, expected 9 or 16; try --runs 9")
    answer = answer_scaling(
        dataset,
        start=start,
        family=family,
        pretraining=pretraining,
        own_only=own_only,
        head=head.value,
        database=database,
    )
    spending = None if more is None else spend(answer, more, head=head.value, database=database)
    if as_json:
        values = {**answer.to_json(), "more": spending.to_json(dataset) if spending else None}
        typer.echo(json.dumps(values, indent=1, allow_nan=False))
    else:
        print_scaling(answer, spending, num_runs, convention.value)
