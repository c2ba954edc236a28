"""`luma list`: what can be measured, from the cards and the shipped cost table."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from luma_cli.cli.options import Convention, Family, Flops, Json, Pretraining
from luma_cli.errors import UsageError


def list_backbones(
    patterns: Annotated[list[str] | None, typer.Argument(help="Names or globs, e.g. 'vit*dinov3*'.")] = None,
    family: Family = "",
    pretraining: Pretraining = "",
    max_gflops: Annotated[
        float | None, typer.Option("--max-gflops", help="Most GFLOPs of the backbone at --res.")
    ] = None,
    resolution: Annotated[int, typer.Option("--res", help="Side in pixels that costs are for.")] = 512,
    convention: Flops = Convention.mac,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print names only.")] = False,
) -> None:
    """List backbones: family, pretraining with public weights, cost of the backbone without head."""
    from luma_cli.catalogue.costs import load_costs
    from luma_cli.catalogue.listing import list_backbones as find
    from luma_cli.report.listing import listing_json, print_listing
    from luma_cli.units import parse_budget

    if max_gflops is not None and not 0 < max_gflops < float("inf"):
        raise UsageError(f"--max-gflops is {max_gflops:g}, expected a number greater than 0; try --max-gflops 200")
    sizes = sorted({size for _, size in load_costs()})
    if resolution not in sizes:
        listed = ", ".join(map(str, sizes))
        raise UsageError(
            f"--res {resolution} is not in the shipped cost table, expected one of {listed}; "
            f"`luma cost NAME --res {resolution}` counts other sizes"
        )
    bound = None if max_gflops is None else parse_budget(f"{max_gflops}gflops", convention.value).limit
    found = find(patterns or (), family=family, pretraining=pretraining, max_macs=bound, resolution=resolution)
    if as_json:
        typer.echo(json.dumps(listing_json(found, convention.value), indent=1, allow_nan=False))
    elif quiet:
        typer.echo("".join(f"{row.spec.name}\n" for row in found.rows), nl=False)
    else:
        print_listing(found, convention.value)
