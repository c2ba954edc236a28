"""`luma cost`: exact GFLOPs and parameters, without GPU, weights or network. The same as `profile --cost-only`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from luma_cli.cli.confirm import confirm_many
from luma_cli.cli.options import (
    Classes,
    Convention,
    Csv,
    Ffn,
    Flops,
    Head,
    Import,
    Json,
    Names,
    Queries,
    Resolutions,
    Yes,
    one_form,
)
from luma_cli.errors import LumaError, UsageError
from luma_cli.head.config import HeadConfig

if TYPE_CHECKING:
    from luma_cli.catalogue.spec import BackboneSpec


def head_config(head: Head, queries: int, classes: int, ffn: str) -> HeadConfig:
    """The head that the options describe. Raises UsageError for a value that is none."""
    if ffn not in ("auto", "reused", "fresh"):
        raise UsageError(f"--ffn {ffn} is unknown, expected auto, reused or fresh")
    return HeadConfig(name=head.value, num_queries=queries, num_classes=classes, ffn=ffn)  # type: ignore[arg-type]


def cost(
    names: Names,
    resolutions: Resolutions = None,
    head: Head = Head.luma,
    queries: Queries = 100,
    classes: Classes = 150,
    ffn: Ffn = "auto",
    imports: Import = None,
    convention: Flops = Convention.mac,
    as_json: Json = False,
    as_csv: Csv = False,
    yes: Yes = False,
) -> None:
    """Count multiply-adds and parameters of backbones with the LUMA head: exact, no GPU, no weights, no network."""
    from luma_cli.catalogue.names import expand

    one_form(as_json, as_csv)
    config = head_config(head, queries, classes, ffn)
    specs = expand(names, imported=imports is not None)
    sizes = resolutions or [512]
    confirm_many(specs, len(sizes), yes)
    print_costs(specs, sizes, config, imports, convention, as_json, as_csv)


def print_costs(
    specs: Sequence[BackboneSpec],
    resolutions: Sequence[int],
    head: HeadConfig,
    imports: str | None,
    convention: Convention,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Print the cost of every backbone at every resolution; what cannot be counted is said on stderr.

    Raises the first refusal when nothing could be counted, or when only one thing was asked for.
    """
    from luma_cli.measure.cost import Cost, costs
    from luma_cli.report.costs import print_cost_table, write_cost_csv, write_cost_json

    wanted = [(spec, resolution) for spec in specs for resolution in resolutions]
    answers = costs(wanted, head, imports=[imports] if imports else [])
    counted = [(spec, answer) for (spec, _), answer in zip(wanted, answers, strict=True) if isinstance(answer, Cost)]
    refused = [answer.error() for answer in answers if not isinstance(answer, Cost)]
    if refused and not counted:
        raise refused[0]
    for error in refused:
        print(f"luma: left out: {error}", file=sys.stderr)
    if as_json:
        write_cost_json(counted, sys.stdout, convention.value)
    elif as_csv:
        write_cost_csv(counted, sys.stdout, convention.value)
    else:
        print_cost_table(counted, convention.value)
    if refused:
        raise LumaError(f"{len(refused)} of {len(wanted)} could not be counted, see above")


def print_by_module(
    specs: Sequence[BackboneSpec], resolutions: Sequence[int], head: HeadConfig, imports: str | None
) -> None:
    """Print multiply-adds of every module by our count and by fvcore's."""
    from luma_cli.head.segmenter import build
    from luma_cli.measure.by_module import by_module
    from luma_cli.measure.imports import find, load
    from luma_cli.report.modules import print_modules

    if imports:
        load(find(imports))
    for spec in specs:
        for resolution in resolutions:
            print_modules(f"{spec.name} at {resolution} px", by_module(build(spec, resolution, head=head)))
