"""`luma doctor`: is this environment sound, and can this backbone be trusted."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from luma_cli.cli.head_options import head_config
from luma_cli.cli.options import (
    L2,
    Classes,
    Database,
    FfnChoice,
    Head,
    HeadName,
    Json,
    Prefix,
    Queries,
    Resolutions,
    TapSide,
    complete_backbone,
)


def doctor(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Backbones to check: FFN, layout, shapes.", autocompletion=complete_backbone),
    ] = None,
    resolutions: Resolutions = None,
    head: HeadName = Head.luma,
    queries: Queries = None,
    classes: Classes = None,
    l2: L2 = None,
    tap: TapSide = None,
    prefix: Prefix = None,
    ffn: FfnChoice = None,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Check the environment; with NAME also that backbone: FFN self-check, layout, whether the head attaches, shapes
    when counted and when run.

    Exit code 1 when a check fails.
    """
    from luma_cli.catalogue.names import expand
    from luma_cli.measure.doctor import check_backbone, check_environment
    from luma_cli.report.table import Table, columns, print_table

    config = head_config(head, queries=queries, classes=classes, l2=l2, tap=tap, prefix=prefix, ffn=ffn)
    sizes = resolutions or [224]
    checks = [("environment", check) for check in check_environment(database)]
    for spec in expand(names or []):
        for size in sizes:
            checks += [(f"{spec.name} at {size} px", check) for check in check_backbone(spec, size, config)]
    if as_json:
        rows = [
            {"what": what, "check": check.name, "verdict": check.verdict, "detail": check.detail}
            for what, check in checks
        ]
        typer.echo(json.dumps({"schema": 1, "checks": rows}, indent=1))
    else:
        cells = tuple((check.verdict, what, check.name, check.detail) for what, check in checks)
        print_table(Table(columns("verdict", "what", "check", "detail~"), cells))
    if any(check.verdict == "fail" for _, check in checks):
        raise typer.Exit(1)
