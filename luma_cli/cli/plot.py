"""`luma plot`: the scaling law as a picture for a paper's column, .png, .svg or .pdf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luma_cli.cli.options import Database, Head, HeadName

app = typer.Typer(help="Draw the front or the scaling law.", no_args_is_help=True)
Out = Annotated[Path, typer.Option("--out", help="File to write: .png, .svg or .pdf.")]


@app.command("scaling")
def scaling(
    out: Out,
    dataset: Annotated[str, typer.Option("--dataset", help="ade20k, cityscapes, or a dataset of own runs.")] = "ade20k",
    family: Annotated[str, typer.Option("--family", help="isotropic, hierarchical, convolutional, hybrid, moe.")] = "",
    pretraining: Annotated[str, typer.Option("--pretraining", help="An objective, e.g. dinov3.")] = "",
    own_only: Annotated[bool, typer.Option("--own-only", help="Use own runs alone.")] = False,
    start: Annotated[
        str, typer.Option("--from", help="Model that exponents are for, NAME@PIXELS.")
    ] = "vit_b.dinov3@512",
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
