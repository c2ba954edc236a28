"""`luma front`: the learned front of mIoU over one kind of cost, as probabilities."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from luma_cli.cli.options import (
    Convention,
    CostDevice,
    Database,
    Dataset,
    EvidenceDataset,
    Families,
    Flops,
    Head,
    HeadName,
    Json,
    Licences,
    OwnOnly,
    Pretrainings,
    Resolutions,
)


class Axis(StrEnum):
    """Kinds of cost that a front may stand on."""

    gflops = "gflops"
    latency = "latency"
    memory = "memory"
    params = "params"
    energy = "energy"
    throughput = "throughput"


def front(
    axis: Annotated[Axis, typer.Option("--x", help="What the front costs.")] = Axis.gflops,
    dataset: EvidenceDataset = Dataset.ade20k,
    resolutions: Resolutions = None,
    family: Families = None,
    pretraining: Pretrainings = None,
    licence: Licences = None,
    device: CostDevice = None,
    head: HeadName = Head.luma,
    own_only: OwnOnly = False,
    as_json: Json = False,
    convention: Flops = Convention.mac,
    database: Database = None,
) -> None:
    """Show the learned front: best expected mIoU at each cost, with the chance of each candidate to be on it.

    A front stands on one dataset, one device and one set of measuring conditions. Rows of another compile mode, number
    format or environment are corrected by an offset or left out, and it says which.
    """
    from luma_cli.advise.front_answer import front_of
    from luma_cli.advise.question import Question
    from luma_cli.report.front import print_front

    question = Question(
        dataset=dataset.value,
        resolutions=tuple(resolutions or ()),
        families=frozenset(family or ()),
        pretrainings=frozenset(pretraining or ()),
        licences=frozenset(licence or ()),
        convention=convention.value,
        device=device,
        head=head.value,
    )
    found = front_of(question, axis.value, only_own=own_only, database=database)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, allow_nan=False))
    else:
        print_front(found)
