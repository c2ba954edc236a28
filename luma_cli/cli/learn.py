"""`luma scaling`, `luma findings` and `luma plot`: conclusions from all results, in words and as pictures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
from luma_cli.cli.runs import PassOptions, RunOptions, Runs
from luma_cli.errors import UsageError

if TYPE_CHECKING:
    from luma_cli.scaling.answer import Scaling


_DESIGNS = (9, 16)
plot = typer.Typer(
    help="Draw the front, the scaling law, curves, a confusion matrix.",
    no_args_is_help=True,
    add_completion=False,
)
Out = Annotated[Path, Option("--out", help="File to write: .png, .svg or .pdf.")]


@dataclass(frozen=True, slots=True)
class CurveOptions:
    """The results that the scaling law is fitted to."""

    dataset: Annotated[str, Option(help="ade20k, cityscapes, or a dataset of own runs.")] = "ade20k"
    family: Family = ""
    pretraining: Pretraining = ""
    own_only: OwnOnly = False
    head: HeadChoice = "luma"
    database: Database = None

    def answer(self, start: str) -> Scaling:
        """The law and its exponents at `start`, NAME@PIXELS. Raises NoAnswer, UsageError."""
        from luma_cli.advise.more_compute import scaling

        return scaling(start=start, **asdict(self))


@spread
def scaling(
    start: Annotated[
        str,
        Option("--from", help="Model of exponents and --more, e.g. vit_b.dinov3@512. \\[default: one of --family]"),
    ] = "",
    more: Annotated[
        float | None, Option(help="Factor of compute, e.g. 10: which model for 10 times that of --from.")
    ] = None,
    num_runs: Annotated[int, Option("--runs", help="Number of runs in the proposed design: 9 or 16.")] = 9,
    convention: Flops = "mac",
    *,
    curve: CurveOptions,
    as_json: Json = False,
) -> None:
    """Fit the scaling law, and say how to spend more compute.

    The law gives the error by model size and resolution. Exponents have 90% intervals; where the results cannot
    determine them, the paper's are shown, with the runs that would.

    Example: luma scaling --from vit_b.dinov3@512 --more 10
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
    device: Annotated[str | None, Option(help="Device for claims on speed: cpu, cuda or part of a name.")] = None,
    claim: Annotated[list[str] | None, Option(help="Only this claim, e.g. imagenet; may repeat.")] = None,
    why: Annotated[
        bool, Option("--why", help="Show rules, all figures, notes and what would settle each claim.")
    ] = False,
    rows: Annotated[bool, Option("--rows", help="List all results behind each claim.")] = False,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Test the paper's claims on all results.

    Each claim has a verdict (supported, contradicted, not enough evidence) by a rule fixed beforehand, numbers with 90%
    intervals, and the commands that would settle it.

    Example: luma findings --claim imagenet --rows
    """
    from luma_cli.findings.findings import findings as answer
    from luma_cli.report.findings import print_findings
    from luma_cli.report.table import print_json

    found = answer(dataset, claims=claim or (), device=device, database=database)
    if as_json:
        print_json(found.to_json(rows))
    else:
        print_findings(found, rows, why=why)


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
    """Draw the front of `luma front` with its uncertainty, all candidates and own runs.

    Example: luma plot front --out front.svg
    """
    from luma_cli.advise.front import front_of
    from luma_cli.report.plots import check_path, picture_of, plot_front

    check_path(out)
    question = filters.question(dataset, device)
    found = front_of(question, axis, only_own=own_only, database=filters.database)
    plot_front(picture_of(found), out)
    print(f"{out}: front of {len(found.rows)} out of {found.num_candidates} candidates")


@plot.command("scaling")
@spread
def draw_scaling(
    out: Out,
    start: Annotated[str, Option("--from", help="Model of the exponents, NAME@PIXELS.")] = "",
    *,
    curve: CurveOptions,
) -> None:
    """Draw error by model size and by resolution with the law of `luma scaling`.

    Example: luma plot scaling --out scaling.svg
    """
    from luma_cli.report.plots import check_path, plot_scaling

    check_path(out)
    answer = curve.answer(start)
    plot_scaling(answer, out)
    print(f"{out}: {len(answer.chosen.points)} results on {len(answer.chosen.levels)} levels")


@plot.command("curve", cls=ManyValued)
def draw_curve(runs: Runs, out: Out, database: Database = None) -> None:
    """Draw training loss and validation mIoU of runs by step.

    Example: luma plot curve latest --out curve.png
    """
    from luma_cli.cli.runs import kept_runs
    from luma_cli.report.plots import check_path
    from luma_cli.report.run_plots import curves_of, plot_curves

    check_path(out)
    found = [curves_of(each.standing.run_id, each.curves) for each in kept_runs(runs, database)]
    plot_curves(found, out)
    print(f"{out}: {len(found)} run{'' if len(found) == 1 else 's'}")


@plot.command("confusion")
@spread
def draw_confusion(
    source: RunOptions,
    out: Out,
    data: Annotated[str | None, Option(help="Dataset: name or TOML file. \\[default: that of the run]")] = None,
    root: Annotated[Path | None, Option(help="Folder of the dataset. \\[default: $LUMA_DATA]")] = None,
    split: Annotated[Literal["train", "val", "test"], Option(help="Split to evaluate on.")] = "val",
    *,
    passes: PassOptions,
) -> None:
    """Evaluate a run and draw which classes it takes for which.

    Example: luma plot confusion latest --out confusion.png
    """
    from luma_cli.cli.runs import counted
    from luma_cli.report.plots import check_path
    from luma_cli.report.run_plots import plot_confusion

    check_path(out)
    name, opened, counts = counted(source, data, root, split, passes)
    plot_confusion(counts.confusion, opened.table.names, f"{name} on {opened.identity} {split}", out)
    print(f"{out}: {len(counts.images)} images")
