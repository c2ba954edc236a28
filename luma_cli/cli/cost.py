"""`luma cost`: exact GFLOPs and parameters, without GPU, weights or network. The same as `profile --cost-only`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.confirm import confirm_many
from luma_cli.cli.head_options import head_config
from luma_cli.cli.options import (
    L2,
    Anew,
    Classes,
    Convention,
    Csv,
    EveryCard,
    FfnChoice,
    Flops,
    Head,
    HeadName,
    Import,
    Json,
    Prefix,
    Queries,
    Resolutions,
    TapSide,
    Yes,
    complete_backbone,
    one_form,
)
from luma_cli.errors import LumaError, UsageError

if TYPE_CHECKING:
    from luma_cli.catalogue.spec import BackboneSpec
    from luma_cli.measure.cost import Cost
    from luma_cli.measure.count_request import Refusal

_NOT_AT_THIS_SIZE = "BadResolution"


def cost(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Card (vit_b, vit_b.dinov3), timm name, glob, hf-hub: or local-dir:", autocompletion=complete_backbone
        ),
    ] = None,
    resolutions: Resolutions = None,
    every_card: EveryCard = False,
    anew: Anew = False,
    head: HeadName = Head.luma,
    queries: Queries = None,
    classes: Classes = None,
    l2: L2 = None,
    tap: TapSide = None,
    prefix: Prefix = None,
    ffn: FfnChoice = None,
    imports: Import = None,
    convention: Flops = Convention.mac,
    as_json: Json = False,
    as_csv: Csv = False,
    yes: Yes = False,
) -> None:
    """Count multiply-adds and parameters of backbones with a head: exact, no GPU, no weights, no network.

    With --all or --count a size at which a backbone cannot be built is a row that says so.
    """
    from luma_cli.catalogue.cards import card_sizes
    from luma_cli.catalogue.names import expand

    one_form(as_json, as_csv)
    if bool(names) == every_card:
        given = "both names and --all are" if names else "neither names nor --all is"
        raise UsageError(f"{given} given, expected one of them; see `luma cost --help`")
    config = head_config(head, queries=queries, classes=classes, l2=l2, tap=tap, prefix=prefix, ffn=ffn)
    specs = card_sizes() if every_card else expand(names or (), imported=imports is not None)
    sizes = resolutions or [512]
    if not every_card:
        confirm_many(specs, len(sizes), yes)
    wanted = [(spec, size) for spec in specs for size in sizes]
    answers = _recount(wanted, config, imports) if anew else _cost(wanted, config, imports)
    show_costs(wanted, answers, config, convention, as_json, as_csv, misfits_are_rows=every_card or anew)


def print_costs(
    specs: Sequence[BackboneSpec],
    resolutions: Sequence[int],
    head: HeadConfig,
    imports: str | None,
    convention: Convention,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Print the cost of every backbone at every resolution; what cannot be counted is said on stderr."""
    wanted = [(spec, resolution) for spec in specs for resolution in resolutions]
    show_costs(wanted, _cost(wanted, head, imports), head, convention, as_json, as_csv)


def show_costs(
    wanted: Sequence[tuple[BackboneSpec, int]],
    answers: Sequence[Cost | Refusal],
    head: HeadConfig,
    convention: Convention,
    as_json: bool,
    as_csv: bool,
    *,
    misfits_are_rows: bool = False,
) -> None:
    """Print the answers, and on stderr what could not be counted.

    misfits_are_rows: sizes at which a backbone cannot be built are rows without numbers, not failures. Raises the first
    refusal when nothing could be counted, and LumaError when something failed.
    """
    from luma_cli.measure.cost import Cost
    from luma_cli.report.costs import Misfit, print_cost_table, write_cost_csv, write_cost_json

    rows: list[tuple[BackboneSpec, Cost | Misfit]] = []
    failed: list[LumaError] = []
    for (spec, resolution), answer in zip(wanted, answers, strict=True):
        if isinstance(answer, Cost):
            rows.append((spec, answer))
        elif misfits_are_rows and answer.kind == _NOT_AT_THIS_SIZE:
            rows.append((spec, Misfit(resolution, head, answer.message)))
        else:
            failed.append(answer.error())
    if failed and not rows:
        raise failed[0]
    for error in failed:
        print(f"luma: left out: {error}", file=sys.stderr)
    if as_json:
        write_cost_json(rows, sys.stdout, convention.value)
    elif as_csv:
        write_cost_csv(rows, sys.stdout, convention.value)
    else:
        print_cost_table(rows, convention.value)
    if failed:
        raise LumaError(f"{len(failed)} of {len(wanted)} could not be counted, see above")


def _cost(wanted: Sequence[tuple[BackboneSpec, int]], head: HeadConfig, imports: str | None) -> list[Cost | Refusal]:
    from luma_cli.measure.cost import costs

    return costs(wanted, head, imports=[imports] if imports else [])


def _recount(wanted: Sequence[tuple[BackboneSpec, int]], head: HeadConfig, imports: str | None) -> list[Cost | Refusal]:
    from luma_cli.measure.recount import recount
    from luma_cli.report.progress import Countdown

    return recount(wanted, head, imports=[imports] if imports else [], on_count=Countdown(sys.stderr, len(wanted)))


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
