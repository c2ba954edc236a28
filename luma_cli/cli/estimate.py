"""`luma estimate`: what one segmenter, or a whole list, would score and cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from luma_cli.cli.options import Convention, Database, Flops, Json, complete_backbone


def estimate(
    name: Annotated[
        str | None,
        typer.Argument(help="Backbone: a card's or timm's name, or a paper's.", autocompletion=complete_backbone),
    ] = None,
    resolution: Annotated[str, typer.Option("--res", help="Crop in pixels: 512 or 512x1024.")] = "",
    dataset: Annotated[str, typer.Option("--dataset", help="Dataset of the accuracy.")] = "ade20k",
    head: Annotated[str, typer.Option("--head", help="luma, eomt, upernet, mask2former, linear (frozen) ...")] = "luma",
    pretraining: Annotated[str, typer.Option("--pretraining", help="Objective, e.g. dinov3; else by the tag.")] = "",
    evaluation: Annotated[str, typer.Option("--eval", help="single-scale or ms+flip.")] = "single-scale",
    file: Annotated[
        Path | None,
        typer.Option("--from", help="CSV: dataset, backbone, pretraining, resolution, head, eval; one row each."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="Device of time and memory: measured here or shipped.")
    ] = None,
    as_json: Json = False,
    convention: Flops = Convention.mac,
    database: Database = None,
) -> None:
    """Estimate the mIoU of a segmenter on its own head's scale, and what it costs.

    Intervals of 50, 80 and 90% are of one training run. Costs are exact, measured or predicted, and say which.
    """
    from luma_cli.advise.estimate import Asked, read_asked
    from luma_cli.advise.estimate_api import estimate_all
    from luma_cli.errors import UsageError
    from luma_cli.report.estimates import print_estimates

    if (name is None) == (file is None):
        raise UsageError("give one backbone or --from FILE.csv, e.g. luma estimate vit_b.dinov3 --res 512")
    if file is not None:
        asked = read_asked(file)
    else:
        asked = [Asked(dataset, name or "", pretraining, resolution, head, evaluation)]
    found, note = estimate_all(asked, device=device, database=database)
    if as_json:
        typer.echo(
            json.dumps({"schema": 1, "estimates": [each.to_json() for each in found]}, indent=1, allow_nan=False)
        )
    else:
        print_estimates(found, note, convention.value)
    if file is None and found[0].prediction is None:
        raise typer.Exit(1)
