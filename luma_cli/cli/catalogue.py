"""`luma list`, `luma show` and `luma doctor`: find a backbone, look it up, check it."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Argument, Option

from luma_cli.cli.options import (
    Database,
    Family,
    Flops,
    HeadOptions,
    Import,
    Json,
    Pretraining,
    Resolutions,
    complete_backbone,
    spread,
)
from luma_cli.errors import UsageError


def list_backbones(
    patterns: Annotated[list[str] | None, Argument(help="Names or globs, e.g. 'vit*dinov3*'.")] = None,
    family: Family = "",
    pretraining: Pretraining = "",
    max_gflops: Annotated[float | None, Option(help="Only backbones of at most so many GFLOPs at --res.")] = None,
    resolution: Annotated[int, Option("--res", help="Side of the input in pixels.")] = 512,
    convention: Flops = "mac",
    as_json: Json = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Print names only.")] = False,
) -> None:
    """List backbones with family, public weights and cost.

    Example: luma list 'vit*' --pretraining dinov3 --max-gflops 200
    """
    from luma_cli.catalogue.costs import load_costs
    from luma_cli.catalogue.listing import list_backbones as find
    from luma_cli.report.catalogue import print_listing
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
    bound = None if max_gflops is None else parse_budget(f"{max_gflops}gflops", convention).limit
    found = find(patterns or (), family=family, pretraining=pretraining, max_macs=bound, resolution=resolution)
    if quiet and not as_json:
        print("".join(f"{row.spec.name}\n" for row in found.rows), end="")
    else:
        print_listing(found, convention, as_json)


@spread
def show(
    name: Annotated[str, Argument(help="Card or timm name.", autocompletion=complete_backbone)],
    pretraining: Annotated[
        bool, Option("--pretraining", help="Show which objectives have weights for which sizes.")
    ] = False,
    *,
    head: HeadOptions,
    convention: Flops = "mac",
    as_json: Json = False,
) -> None:
    """Show one backbone: licence, weights, cost by resolution; with --head luma the equations of the head.

    Example: luma show vit_b --head luma --variant authors-2025
    """
    from luma_cli.catalogue.listing import show as look_up
    from luma_cli.report.catalogue import print_pretraining, print_sheet

    config = head.config()
    sheet = look_up(name)
    if pretraining and not as_json:
        print_pretraining(sheet)
    else:
        print_sheet(sheet, convention, config, as_json, equations=head.given)


@spread
def doctor(
    names: Annotated[list[str] | None, Argument(help="Backbones to check.", autocompletion=complete_backbone)] = None,
    resolutions: Resolutions = None,
    imports: Import = None,
    *,
    head: HeadOptions,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Check the installation, or that backbones work.

    A backbone works when it builds, accepts the head and gives the right shapes. Exit code 1 when a check fails.

    Example: luma doctor vit_b.dinov3 --res 512
    """
    from luma_cli.catalogue.names import expand
    from luma_cli.measure.doctor import check_backbone, check_environment
    from luma_cli.report.table import Table, columns, print_json, print_table

    config = head.config()
    checks = [("environment", check) for check in check_environment(database)]
    if imports:
        from luma_cli.measure.imports import find, load

        load(find(imports))
    for spec in expand(names or [], imported=imports is not None):
        for size in resolutions or [224]:
            checks += [(f"{spec.name} at {size} px", check) for check in check_backbone(spec, size, config)]
    rows = [(check.verdict, what, check.name, check.detail) for what, check in checks]
    if as_json:
        named = [dict(zip(("verdict", "what", "check", "detail"), row, strict=True)) for row in rows]
        print_json({"schema": 1, "checks": named})
    else:
        print_table(Table(columns("verdict", "what", "check", "detail~"), tuple(rows)))
    if any(check.verdict == "fail" for _, check in checks):
        raise typer.Exit(1)
