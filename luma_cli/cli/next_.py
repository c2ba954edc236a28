"""`luma next`: which runs are worth most, each as the line to type."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from luma_cli.cli.options import (
    Convention,
    Database,
    Dataset,
    Families,
    Flops,
    Head,
    HeadName,
    Json,
    Licences,
    Pretrainings,
    Resolutions,
)


def next_(
    hours: Annotated[
        float | None, typer.Option("--budget-hours", help="GPU-hours that the runs may take together.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget", help="Of the model, e.g. 200gflops: runs for the recommendation under it; may repeat."
        ),
    ] = None,
    dataset: Annotated[Dataset, typer.Option("--dataset", help="Dataset to train on.")] = Dataset.ade20k,
    top: Annotated[int, typer.Option("--top", help="How many runs at most.")] = 3,
    resolutions: Resolutions = None,
    family: Families = None,
    pretraining: Pretrainings = None,
    licence: Licences = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Device that trains: cuda or part of its name.")
    ] = None,
    head: HeadName = Head.luma,
    as_json: Json = False,
    convention: Flops = Convention.mac,
    database: Database = None,
) -> None:
    """Say what to train next, by what each run is expected to add for what it costs.

    Without --budget: expected gain of the front's hypervolume per GPU-hour. With it: expected drop in regret of what
    luma recommend says under it. Each run is an exact luma train line.
    """
    from luma_cli.advise.budgets import tightest
    from luma_cli.advise.next_answer import next_runs
    from luma_cli.advise.question import Question
    from luma_cli.report.next_run import print_next
    from luma_cli.units import parse_budget

    question = Question(
        dataset=dataset.value,
        budgets=tightest(parse_budget(each, convention.value) for each in budget or ()),
        resolutions=tuple(resolutions or ()),
        families=frozenset(family or ()),
        pretrainings=frozenset(pretraining or ()),
        licences=frozenset(licence or ()),
        convention=convention.value,
        device=device,
        head=head.value,
    )
    found = next_runs(question, hours=hours, top=top, database=database)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, allow_nan=False))
    else:
        print_next(found)
