"""`luma scaling`, `luma findings` and `luma plot`: what all results together say, in words and as pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from luma_cli.cli.options import (
    CostAxis,
    CostDevice,
    Database,
    EvidenceDataset,
    Family,
    Filters,
    Flops,
    HeadChoice,
    Json,
    ManyValued,
    OwnOnly,
    Pretraining,
    spread,
)
from luma_cli.errors import UsageError

if TYPE_CHECKING:
    from luma_cli.scaling.answer import Scaling


_DESIGNS = (9, 16)
plot = typer.Typer(help="Draw the front or the scaling law.", no_args_is_help=True, add_completion=False)
Out = Annotated[Path, Option("--out", help="File to write: .png, .svg or .pdf.")]


@dataclass(frozen=True, slots=True)
class CurveOptions:
    """Which results the scaling law is fitted to."""

    dataset: Annotated[str, Option(help="ade20k, cityscapes, or a dataset of own runs.")] = "ade20k"
    family: Family = ""
    pretraining: Pretraining = ""
    own_only: OwnOnly = False
    head: HeadChoice = "luma"
    database: Database = None

    def answer(self, start: str) -> Scaling:
        """The law and what follows at `start`, a model as NAME@PIXELS. Raises NoAnswer, UsageError."""
        from luma_cli.advise.more_compute import scaling

        return scaling(start=start, **asdict(self))


@spread
def scaling(
    start: Annotated[
        str,
        Option("--from", help="Model that exponents and --more are for, as vit_b.dinov3@512; else one of --family."),
    ] = "",
    more: Annotated[float | None, Option(help="How many times the compute of --from there is, e.g. 10.")] = None,
    num_runs: Annotated[int, Option("--runs", help="Size of the design that is listed: 9 or 16.")] = 9,
    convention: Flops = "mac",
    *,
    curve: CurveOptions,
    as_json: Json = False,
) -> None:
    """Fit the scaling law of error in size and resolution, and say how to spend compute.

    Exponents are printed with their 90% interval where the results tell them; where not, the paper's are shown as the
    paper's, with the runs that would tell.
    """
    from luma_cli.advise.more_compute import spend
    from luma_cli.report.scaling import print_scaling
    from luma_cli.report.table import print_json
    from luma_cli.scaling.series import check_factor
    from luma_cli.to_json import to_json

    if more is not None:
        check_factor(more)
    if num_runs not in _DESIGNS:
        raise UsageError(f"--runs is {num_runs}, expected 9 or 16; try --runs 9")
    answer = curve.answer(start)
    spending = None if more is None else spend(answer, more, head=curve.head, database=curve.database)
    if as_json:
        print_json({**to_json(answer), "more": to_json(spending)})
    else:
        print_scaling(answer, spending, num_runs, convention)


def findings(
    dataset: EvidenceDataset = "ade20k",
    device: Annotated[str | None, Option(help="Device of measured claims: cpu, cuda or part of its name.")] = None,
    claim: Annotated[list[str] | None, Option(help="Name of a claim; may repeat.")] = None,
    rows: Annotated[bool, Option("--rows", help="List every row of evidence behind each claim.")] = False,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Test the paper's claims on published results, your own runs and your profiles.

    Each has a verdict (supported, contradicted, not enough evidence) by a rule fixed beforehand, its numbers with 90%
    intervals, the rows behind them, and the commands that would settle it.
    """
    from luma_cli.findings.findings import findings as answer
    from luma_cli.report.findings import print_findings
    from luma_cli.report.table import print_json

    found = answer(dataset, claims=claim or (), device=device, database=database)
    if as_json:
        print_json(found.to_json(rows))
    else:
        print_findings(found, rows)


@plot.command("front", cls=ManyValued)
@spread
def draw_front(
    out: Out,
    axis: CostAxis = "gflops",
    dataset: EvidenceDataset = "ade20k",
    device: CostDevice = None,
    own_only: OwnOnly = False,
    *,
    filters: Filters,
) -> None:
    """Draw the learned front that `luma front` prints, with its band, all candidates and own runs."""
    from luma_cli.advise.front import front_of
    from luma_cli.report.plots import check_path, picture_of, plot_front

    check_path(out)
    question = filters.question(dataset, device)
    found = front_of(question, axis, only_own=own_only, database=filters.database)
    plot_front(picture_of(found), out)
    typer.echo(f"{out}: front of {len(found.rows)} out of {found.num_candidates} candidates")


@plot.command("scaling")
@spread
def draw_scaling(
    out: Out,
    start: Annotated[str, Option("--from", help="Model that exponents are for, NAME@PIXELS.")] = "",
    *,
    curve: CurveOptions,
) -> None:
    """Draw error by size and by resolution, every level moved onto one, with what `luma scaling` concludes."""
    from luma_cli.report.plots import check_path, plot_scaling

    check_path(out)
    answer = curve.answer(start)
    plot_scaling(answer, out)
    typer.echo(f"{out}: {len(answer.chosen.points)} results on {len(answer.chosen.levels)} levels")
