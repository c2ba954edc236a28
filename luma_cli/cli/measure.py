"""`luma profile`: throughput, latency, memory, energy and exact cost of the whole segmenter, kept in the store."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.options import (
    L2,
    Again,
    Anew,
    Attention,
    Classes,
    Compile,
    Convention,
    Csv,
    Database,
    Dtype,
    EveryCard,
    FfnChoice,
    Flops,
    Head,
    HeadName,
    Import,
    Isolation,
    Json,
    Names,
    Part,
    Prefix,
    Queries,
    Resolutions,
    Switch,
    TapSide,
    Yes,
    complete_backbone,
    confirm_many,
    head_config,
    one_form,
)
from luma_cli.errors import LumaError, UsageError

if TYPE_CHECKING:
    from luma_cli.catalogue.spec import BackboneSpec
    from luma_cli.measure.cost import Cost, Refusal


_TROUBLE_EXIT = 1


def parse_batch(text: str) -> int:
    """`auto` as 0, else a whole number of at least 1."""
    if text == "auto":
        return 0
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise UsageError(f"--batch {text} is out of range, expected auto or at least 1; try --batch 1")


def profile(
    names: Names,
    resolutions: Resolutions = None,
    head: HeadName = Head.luma,
    weights: Annotated[
        str,
        typer.Option(
            "--weights",
            help="random, pretrained, FILE, local-dir:FOLDER, hf-hub:OWNER/REPO; from disk or cache, not downloaded.",
        ),
    ] = "random",
    batch: Annotated[str, typer.Option("--batch", help="auto (plateau search) or a number.")] = "auto",
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Number format of the weights.")] = Dtype.fp32,
    attention: Annotated[Attention, typer.Option("--attention", help="Attention implementation.")] = Attention.auto,
    compile_mode: Annotated[Compile, typer.Option("--compile", help="Mode of torch.compile.")] = Compile.none,
    channels_last: Annotated[
        Switch, typer.Option("--channels-last", help="auto: the faster of both for convolutional models.")
    ] = Switch.auto,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, cuda or cuda:N (numbered as nvidia-smi does).")
    ] = "auto",
    part: Annotated[Part, typer.Option("--part", help="What is run.")] = Part.all,
    cost_only: Annotated[bool, typer.Option("--cost-only", help="Count, do not run.")] = False,
    by_module: Annotated[
        bool, typer.Option("--by-module", help="Multiply-adds per module, counted by fvcore and cross-checked.")
    ] = False,
    train_memory: Annotated[
        bool, typer.Option("--train-memory", help="Also the peak memory of one training step.")
    ] = False,
    isolation: Annotated[
        Isolation, typer.Option("--isolation", help="One process per configuration, per backbone, or none.")
    ] = Isolation.config,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds after which a configuration is killed.")] = 900.0,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="Most seconds of sampling per number; more would narrow it.")
    ] = 10.0,
    convention: Flops = Convention.mac,
    again: Annotated[
        Again | None, typer.Option("--again", help="Measure again what is kept: all, or only what failed.")
    ] = None,
    tag: Annotated[str, typer.Option("--tag", help="Your own label, stored with every row.")] = "",
    queries: Queries = None,
    classes: Classes = None,
    l2: L2 = None,
    tap: TapSide = None,
    prefix: Prefix = None,
    ffn: FfnChoice = None,
    imports: Import = None,
    as_json: Json = False,
    as_csv: Csv = False,
    yes: Yes = False,
    database: Database = None,
) -> None:
    """Measure backbones with a head on this machine and keep every number.

    The same command again fills only the gaps. Weights are random unless --weights says otherwise; the network is never
    touched.
    """
    from luma_cli.catalogue.names import expand

    one_form(as_json, as_csv)
    if by_module and (as_json or as_csv):
        raise UsageError("--by-module prints a table only; leave out --json and --csv, or pipe it: columns are tabs")
    batch_size = parse_batch(batch)
    config = head_config(head, queries=queries, classes=classes, l2=l2, tap=tap, prefix=prefix, ffn=ffn)
    specs = expand(names, imported=imports is not None)
    sizes = resolutions or [512]
    confirm_many(specs, len(sizes), yes)
    if by_module:
        print_by_module(specs, sizes, config, imports)
        return
    if cost_only:
        print_costs(specs, sizes, config, imports, convention, as_json, as_csv)
        return
    from luma_cli.measure.sweep import Settings, profile_specs, template
    from luma_cli.report.profiles import print_profiles
    from luma_cli.report.progress import Progress
    from luma_cli.store.records import TROUBLE

    wanted = template(
        head=config,
        weights=weights,
        batch=batch_size,
        dtype=dtype.value,
        attention=attention.value,
        compile=compile_mode.value,
        channels_last=channels_last.value,
        part=part.value,
        train_memory=train_memory,
        tag=tag,
    )
    settings = Settings(
        device=device,
        isolation=isolation.value,
        again=again.value if again else None,
        timeout_seconds=timeout,
        max_seconds=max_seconds,
        imports=(imports,) if imports else (),
    )
    with Progress(sys.stderr) as progress:
        profiles = profile_specs(specs, sizes, wanted, settings, database=database, on_event=progress)
    print_profiles(profiles, convention.value, as_json, as_csv)
    if any(found.status in TROUBLE for found in profiles):
        raise typer.Exit(_TROUBLE_EXIT)


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
    from luma_cli.report.profiles import Misfit, print_cost_table, write_cost_csv, write_cost_json

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
    from luma_cli.measure.cost import recount
    from luma_cli.report.progress import Countdown

    return recount(wanted, head, imports=[imports] if imports else [], on_count=Countdown(sys.stderr, len(wanted)))


def print_by_module(
    specs: Sequence[BackboneSpec], resolutions: Sequence[int], head: HeadConfig, imports: str | None
) -> None:
    """Print multiply-adds of every module by our count and by fvcore's."""
    from luma_cli.head.segmenter import build
    from luma_cli.measure.facts import by_module
    from luma_cli.measure.imports import find, load
    from luma_cli.report.profiles import print_modules

    if imports:
        load(find(imports))
    for spec in specs:
        for resolution in resolutions:
            print_modules(f"{spec.name} at {resolution} px", by_module(build(spec, resolution, head=head)))
