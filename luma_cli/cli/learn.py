"""`luma scaling`: how error falls with size and resolution, and how to spend more compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from luma_cli.cli.options import (
    Axis,
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
    Json,
    Licences,
    ManyValued,
    OwnOnly,
    Pretraining,
    Pretrainings,
    Resolutions,
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
    from luma_cli.advise.more_compute import scaling as answer_scaling
    from luma_cli.advise.more_compute import spend
    from luma_cli.report.scaling import print_scaling
    from luma_cli.scaling.series import check_factor
    from luma_cli.to_json import to_json

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
        values = {**to_json(answer), "more": to_json(spending)}
        typer.echo(json.dumps(values, indent=1, allow_nan=False))
    else:
        print_scaling(answer, spending, num_runs, convention.value)


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
    from luma_cli.findings.findings import findings as answer
    from luma_cli.report.findings import print_findings

    found = answer(dataset.value, claims=claim or (), device=device, database=database)
    if as_json:
        typer.echo(json.dumps(found.to_json(rows), indent=1, allow_nan=False))
    else:
        print_findings(found, rows)


plot = typer.Typer(help="Draw the front or the scaling law.", no_args_is_help=True, add_completion=False)
Start = Annotated[str, typer.Option("--from", help="Model that exponents are for, NAME@PIXELS.")]
Out = Annotated[Path, typer.Option("--out", help="File to write: .png, .svg or .pdf.")]


@plot.command("front", cls=ManyValued)
def draw_front(
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
    from luma_cli.advise.front import front_of
    from luma_cli.advise.question import Question
    from luma_cli.report.plots import check_path, picture_of, plot_front

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
    plot_front(picture_of(found, found.backdrop), out)
    typer.echo(f"{out}: front of {len(found.rows)} out of {found.num_candidates} candidates")


@plot.command("scaling")
def draw_scaling(
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
    from luma_cli.advise.more_compute import scaling as answer_scaling
    from luma_cli.report.plot_scaling import plot_scaling
    from luma_cli.report.plots import check_path

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
