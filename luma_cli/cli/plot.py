"""`luma plot`: the front or the scaling law as a picture for a paper's column, .png, .svg or .pdf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luma_cli.cli.command import ManyValued
from luma_cli.cli.front import Axis
from luma_cli.cli.options import (
    Convention,
    CostDevice,
    CurveDataset,
    Database,
    Dataset,
    EvidenceDataset,
    Families,
    Family,
    Flops,
    Head,
    HeadName,
    Licences,
    OwnOnly,
    Pretraining,
    Pretrainings,
    Resolutions,
)

app = typer.Typer(help="Draw the front or the scaling law.", no_args_is_help=True)
Start = Annotated[str, typer.Option("--from", help="Model that exponents are for, NAME@PIXELS.")]
Out = Annotated[Path, typer.Option("--out", help="File to write: .png, .svg or .pdf.")]


@app.command("front", cls=ManyValued)
def front(
    out: Out,
    axis: Annotated[Axis, typer.Option("--x", help="What the front costs.")] = Axis.gflops,
    dataset: EvidenceDataset = Dataset.ade20k,
    resolutions: Resolutions = None,
    family: Families = None,
    pretraining: Pretrainings = None,
    licence: Licences = None,
    device: CostDevice = None,
    head: HeadName = Head.luma,
    own_only: OwnOnly = False,
    convention: Flops = Convention.mac,
    database: Database = None,
) -> None:
    """Draw the learned front that `luma front` prints, with its band, all candidates and own runs."""
    from luma_cli.advise.backdrop import backdrop
    from luma_cli.advise.front_answer import front_of
    from luma_cli.advise.question import Question
    from luma_cli.report.front_picture import picture_of
    from luma_cli.report.plot_file import check_path
    from luma_cli.report.plot_front import plot_front

    check_path(out)
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
    plot_front(picture_of(found, backdrop(question, axis.value, only_own=own_only, database=database)), out)
    typer.echo(f"{out}: front of {len(found.rows)} out of {found.num_candidates} candidates")


@app.command("scaling")
def scaling(
    out: Out,
    dataset: CurveDataset = "ade20k",
    family: Family = "",
    pretraining: Pretraining = "",
    own_only: OwnOnly = False,
    start: Start = "",
    head: HeadName = Head.luma,
    database: Database = None,
) -> None:
    """Draw error by size and by resolution, every level moved onto one, with what `luma scaling` concludes."""
    from luma_cli.advise.scaling_api import scaling as answer_scaling
    from luma_cli.report.plot_file import check_path
    from luma_cli.report.plot_scaling import plot_scaling

    check_path(out)
    answer = answer_scaling(
        dataset,
        start=start,
        family=family,
        pretraining=pretraining,
        own_only=own_only,
        head=head.value,
        database=database,
    )
    plot_scaling(answer, out)
    typer.echo(f"{out}: {len(answer.chosen.points)} results on {len(answer.chosen.levels)} levels")
