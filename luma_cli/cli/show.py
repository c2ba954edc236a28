"""`luma show NAME`: all that is known about one backbone before anything is built."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from luma_cli.cli.head_options import head_config
from luma_cli.cli.options import (
    L2,
    Classes,
    Convention,
    FfnChoice,
    Flops,
    Head,
    HeadName,
    Json,
    Prefix,
    Queries,
    TapSide,
    complete_backbone,
)


def show(
    name: Annotated[str, typer.Argument(help="Card or timm name.", autocompletion=complete_backbone)],
    pretraining: Annotated[
        bool, typer.Option("--pretraining", help="Which objectives have weights for which sizes.")
    ] = False,
    head: HeadName = Head.luma,
    queries: Queries = None,
    classes: Classes = None,
    l2: L2 = None,
    tap: TapSide = None,
    prefix: Prefix = None,
    ffn: FfnChoice = None,
    convention: Flops = Convention.mac,
    as_json: Json = False,
) -> None:
    """Show card, timm name, tap, FFN, licence, pretraining, and the cost at six resolutions."""
    from luma_cli.catalogue.listing import show as look_up
    from luma_cli.report.sheet import print_pretraining, print_sheet, sheet_json

    config = head_config(head, queries=queries, classes=classes, l2=l2, tap=tap, prefix=prefix, ffn=ffn)
    sheet = look_up(name)
    if as_json:
        typer.echo(json.dumps(sheet_json(sheet, convention.value, config), indent=1, allow_nan=False))
    elif pretraining:
        print_pretraining(sheet)
    else:
        print_sheet(sheet, convention.value, config)
