"""`luma profile`: throughput, latency, memory, energy and exact cost of the whole segmenter, kept in the store."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from luma_cli.cli.confirm import confirm_many
from luma_cli.cli.cost import print_by_module, print_costs
from luma_cli.cli.head_options import head_config
from luma_cli.cli.options import (
    L2,
    Again,
    Attention,
    Classes,
    Compile,
    Convention,
    Csv,
    Database,
    Dtype,
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
    one_form,
)
from luma_cli.errors import UsageError

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
    from luma_cli.measure.api import measure
    from luma_cli.measure.sweep import Settings, template
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
        profiles = measure(specs, sizes, wanted, settings, database=database, on_event=progress)
    print_profiles(profiles, convention.value, as_json, as_csv)
    if any(found.status in TROUBLE for found in profiles):
        raise typer.Exit(_TROUBLE_EXIT)
