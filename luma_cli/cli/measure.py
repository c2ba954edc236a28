"""`luma cost` and `luma profile`: exact cost, speed, memory and energy of backbones with a head."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer import Option

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.cli.options import (
    Compile,
    Csv,
    Database,
    Flops,
    HeadOptions,
    Import,
    Json,
    ManyYes,
    Names,
    NamesUnlessAll,
    Resolutions,
    confirm_many,
    one_form,
    spread,
)
from luma_cli.errors import LumaError, UsageError
from luma_cli.units import FlopConvention

if TYPE_CHECKING:
    from luma_cli.catalogue.spec import BackboneSpec
    from luma_cli.measure.cost import Cost, Refusal


_NOT_AT_THIS_SIZE = "BadResolution"
_TROUBLE_EXIT = 1

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["auto", "flash", "efficient", "cudnn", "math", "unfused", "flash-attn"]
Switch = Literal["auto", "on", "off"]
Part = Literal["all", "backbone", "head"]
Isolation = Literal["config", "backbone", "none"]
Again = Literal["all", "failed"]
EveryCard = Annotated[bool, Option("--all", help="All cards in all sizes, instead of names.")]
Anew = Annotated[bool, Option("--count", help="Count every segmenter anew and compare with the closed form.")]


@spread
def cost(
    names: NamesUnlessAll = None,
    resolutions: Resolutions = None,
    every_card: EveryCard = False,
    anew: Anew = False,
    *,
    head: HeadOptions,
    imports: Import = None,
    convention: Flops = "mac",
    as_json: Json = False,
    as_csv: Csv = False,
    yes: ManyYes = False,
) -> None:
    """Count multiply-adds and parameters of backbones with a head: exact, no GPU, no weights, no network.

    With --all or --count, a size that a backbone does not support becomes a row that says so.
    """
    from luma_cli.catalogue.cards import card_sizes
    from luma_cli.catalogue.names import expand

    one_form(as_json, as_csv)
    if bool(names) == every_card:
        given = "both names and --all are" if names else "neither names nor --all is"
        raise UsageError(f"{given} given, expected one of them; see `luma cost --help`")
    config = head.config()
    specs = card_sizes() if every_card else expand(names or (), imported=imports is not None)
    sizes = resolutions or [512]
    if not every_card:
        confirm_many(specs, len(sizes), yes)
    wanted = [(spec, size) for spec in specs for size in sizes]
    answers = _answers(wanted, config, imports, anew=anew)
    _show(wanted, answers, config, convention, as_json, as_csv, misfits_are_rows=every_card or anew)


def _answers(
    wanted: Sequence[tuple[BackboneSpec, int]], head: HeadConfig, imports: str | None, *, anew: bool = False
) -> list[Cost | Refusal]:
    """The cost of each from table or cache, or counted anew; a refusal where it is not known."""
    from luma_cli.measure.cost import costs, recount

    modules = [imports] if imports else []
    if not anew:
        return costs(wanted, head, imports=modules)
    from luma_cli.report.progress import Countdown

    return recount(wanted, head, imports=modules, on_count=Countdown(sys.stderr, len(wanted)))


def _show(
    wanted: Sequence[tuple[BackboneSpec, int]],
    answers: Sequence[Cost | Refusal],
    head: HeadConfig,
    convention: FlopConvention,
    as_json: bool,
    as_csv: bool,
    *,
    misfits_are_rows: bool = False,
) -> None:
    """Print the answers, and the failures on stderr.

    misfits_are_rows: sizes that a backbone does not support are rows without numbers, not failures. Raises the first
    refusal when everything failed, and LumaError when something did.
    """
    from luma_cli.measure.cost import Cost
    from luma_cli.report.profiles import Misfit, print_costs

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
    print_costs(rows, convention, as_json, as_csv)
    if failed:
        raise LumaError(f"{len(failed)} of {len(wanted)} could not be counted, see above")


@spread
def profile(
    names: Names,
    resolutions: Resolutions = None,
    weights: Annotated[
        str, Option(help="random, pretrained, FILE, local-dir:FOLDER or hf-hub:OWNER/REPO, from disk or cache.")
    ] = "random",
    batch: Annotated[str, Option(help="auto (plateau search) or a number.")] = "auto",
    dtype: Annotated[Dtype, Option(help="Number format of the weights.")] = "float32",
    attention: Annotated[Attention, Option(help="Attention implementation.")] = "auto",
    compile_mode: Annotated[Compile, Option("--compile", help="Mode of torch.compile.")] = "none",
    channels_last: Annotated[Switch, Option(help="auto: the faster layout for convolutional models.")] = "auto",
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N (numbered as nvidia-smi does).")] = "auto",
    part: Annotated[Part, Option(help="Part to run.")] = "all",
    cost_only: Annotated[bool, Option("--cost-only", help="Count only.")] = False,
    by_module: Annotated[bool, Option("--by-module", help="Multiply-adds per module, by luma and by fvcore.")] = False,
    train_memory: Annotated[bool, Option("--train-memory", help="Also measure the memory of a training step.")] = False,
    isolation: Annotated[Isolation, Option(help="One process per configuration, per backbone, or none.")] = "config",
    timeout: Annotated[float, Option(help="Seconds before a configuration is stopped.")] = 900.0,
    max_seconds: Annotated[float, Option(help="Longest sampling per number; more narrows the interval.")] = 10.0,
    convention: Flops = "mac",
    again: Annotated[Again | None, Option(help="Measure stored configurations again: all, or failed.")] = None,
    tag: Annotated[str, Option(help="Label stored with every row.")] = "",
    *,
    head: HeadOptions,
    imports: Import = None,
    as_json: Json = False,
    as_csv: Csv = False,
    yes: ManyYes = False,
    database: Database = None,
) -> None:
    """Measure backbones with a head on this machine and store the results.

    Repeating the command measures only what is missing. Weights are random unless --weights is given; nothing is
    downloaded.
    """
    from luma_cli.catalogue.names import expand

    one_form(as_json, as_csv)
    if by_module and (as_json or as_csv):
        raise UsageError("--by-module prints a table only; leave out --json and --csv, or pipe it: columns are tabs")
    batch_size = parse_batch(batch)
    config = head.config()
    specs = expand(names, imported=imports is not None)
    sizes = resolutions or [512]
    confirm_many(specs, len(sizes), yes)
    wanted = [(spec, size) for spec in specs for size in sizes]
    if by_module:
        _print_by_module(wanted, config, imports)
        return
    if cost_only:
        _show(wanted, _answers(wanted, config, imports), config, convention, as_json, as_csv)
        return
    from luma_cli.measure import sweep
    from luma_cli.report.profiles import print_profiles
    from luma_cli.report.progress import Progress
    from luma_cli.store.records import TROUBLE

    settings = sweep.SweepSettings(
        device=device,
        isolation=isolation,
        again=again,
        timeout_seconds=timeout,
        max_seconds=max_seconds,
        imports=(imports,) if imports else (),
    )
    with Progress(sys.stderr) as progress:
        profiles = sweep.profile(
            names,
            sizes,
            head=config,
            settings=settings,
            database=database,
            on_event=progress,
            weights=weights,
            batch=batch_size,
            dtype=dtype,
            attention=attention,
            compile=compile_mode,
            channels_last=channels_last,
            part=part,
            train_memory=train_memory,
            tag=tag,
        )
    print_profiles(profiles, convention, as_json, as_csv)
    if any(found.status in TROUBLE for found in profiles):
        raise typer.Exit(_TROUBLE_EXIT)


def parse_batch(text: str) -> int:
    """`auto` as 0, else a whole number of at least 1."""
    if text == "auto":
        return 0
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    raise UsageError(f"--batch {text} is out of range, expected auto or at least 1; try --batch 1")


def _print_by_module(wanted: Sequence[tuple[BackboneSpec, int]], head: HeadConfig, imports: str | None) -> None:
    """Print multiply-adds of every module by our count and by fvcore's."""
    from luma_cli.head.segmenter import build
    from luma_cli.measure.facts import by_module
    from luma_cli.measure.imports import find, load
    from luma_cli.report.profiles import print_modules

    if imports:
        load(find(imports))
    for spec, resolution in wanted:
        print_modules(f"{spec.name} at {resolution} px", by_module(build(spec, resolution, head=head)))
