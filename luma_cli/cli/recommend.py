"""`luma recommend`: backbone, pretraining and resolution under any mix of budgets, with the evidence."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from luma_cli.cli.options import Convention, Database, Dataset, Flops, Head, HeadName, Json, Resolutions


def recommend(
    budget: Annotated[
        list[str] | None,
        typer.Option("--budget", help="200gflops, 100gmacs, 50Mparams, 20ms, 30fps, 500img/s, 8GiB, 2J; may repeat."),
    ] = None,
    dataset: Annotated[Dataset, typer.Option("--dataset", help="Dataset of the accuracy.")] = Dataset.ade20k,
    resolutions: Resolutions = None,
    family: Annotated[
        list[str] | None, typer.Option("--family", help="isotropic, hierarchical, convolutional, hybrid, moe.")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="How many rows.")] = 5,
    head: HeadName = Head.luma,
    device: Annotated[
        str | None, typer.Option("--device", help="Device of measured budgets: cpu, cuda or part of its name.")
    ] = None,
    as_json: Json = False,
    convention: Flops = Convention.mac,
    database: Database = None,
) -> None:
    """Recommend backbone, pretraining and resolution under a budget.

    GFLOPs and parameters are exact and include --head; ms, fps, img/s, GiB and J use only rows measured with that head
    on the device. Accuracy stands on one named scale, which may be another head's, and says which.
    """
    from luma_cli.advise.api import recommend as answer
    from luma_cli.report.recommendation import print_recommendation

    found = answer(
        budget or [],
        dataset=dataset.value,
        resolutions=resolutions or (),
        families=family or (),
        top=top,
        head=head.value,
        device=device,
        convention=convention.value,
        database=database,
    )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, allow_nan=False))
    else:
        print_recommendation(found, convention.value)
