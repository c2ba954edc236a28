"""Options that several commands share, spelled once."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from luma_cli.catalogue.heads import HAS, HeadConfig
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import UsageError


def complete_backbone(incomplete: str) -> list[str]:
    """Backbone names that start with what was typed, from the cards alone."""
    from luma_cli.catalogue.names import complete

    return complete(incomplete)


class Head(StrEnum):
    """Heads that can be attached."""

    luma = "luma"
    eomt = "eomt"
    linear = "linear"
    none = "none"


class Tap(StrEnum):
    """What LUMA's queries read of a tapped block."""

    output = "output"
    input = "input"


class Ffn(StrEnum):
    """Whose feed-forward layers LUMA's queries use."""

    auto = "auto"
    reused = "reused"
    fresh = "fresh"


class Axis(StrEnum):
    """Kinds of cost that a front may stand on."""

    gflops = "gflops"
    latency = "latency"
    memory = "memory"
    params = "params"
    energy = "energy"
    throughput = "throughput"


class Convention(StrEnum):
    """How many FLOPs one multiply-add counts."""

    mac = "mac"
    twice = "2x"


class Dataset(StrEnum):
    """Datasets with evidence."""

    ade20k = "ade20k"
    cityscapes = "cityscapes"


class Switch(StrEnum):
    """A setting that can be left to luma."""

    auto = "auto"
    on = "on"
    off = "off"


class Dtype(StrEnum):
    """Number formats of the weights."""

    fp32 = "float32"
    bf16 = "bfloat16"
    fp16 = "float16"


class Attention(StrEnum):
    """Attention implementations."""

    auto = "auto"
    flash = "flash"
    efficient = "efficient"
    cudnn = "cudnn"
    math = "math"
    unfused = "unfused"
    flash_attn = "flash-attn"


class Compile(StrEnum):
    """Modes of torch.compile."""

    none = "none"
    default = "default"
    reduce_overhead = "reduce-overhead"
    max_autotune = "max-autotune"
    max_autotune_no_cudagraphs = "max-autotune-no-cudagraphs"


class Part(StrEnum):
    """What is run."""

    all = "all"
    backbone = "backbone"
    head = "head"


class Isolation(StrEnum):
    """How many configurations share a process."""

    config = "config"
    backbone = "backbone"
    none = "none"


class Again(StrEnum):
    """Which finished configurations to measure again."""

    all = "all"
    failed = "failed"


def one_form(as_json: bool, as_csv: bool) -> None:
    """Refuse two forms of output at once, with UsageError."""
    if as_json and as_csv:
        raise UsageError("--json and --csv are both given, expected one of them; leave one out")


Names = Annotated[
    list[str],
    typer.Argument(
        help="Card (vit_b, vit_b.dinov3), timm name, glob, hf-hub: or local-dir:", autocompletion=complete_backbone
    ),
]
Resolutions = Annotated[
    list[int] | None, typer.Option("--res", help="Side of the square input in pixels; several may follow.")
]
Database = Annotated[Path | None, typer.Option("--db", help="Database file. \\[default: $LUMA_DB or the data folder]")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, schema 1.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV with timm's column names.")]
Flops = Annotated[Convention, typer.Option("--flop-convention", help="FLOPs per multiply-add, in display and budgets.")]
EvidenceDataset = Annotated[Dataset, typer.Option("--dataset", help="Dataset of the accuracy.")]
CurveDataset = Annotated[str, typer.Option("--dataset", help="ade20k, cityscapes, or a dataset of own runs.")]
_FAMILIES = "isotropic, hierarchical, convolutional, hybrid, moe"
Family = Annotated[str, typer.Option("--family", help=f"{_FAMILIES}.")]
Families = Annotated[list[str] | None, typer.Option("--family", help=f"{_FAMILIES}; may repeat.")]
Pretraining = Annotated[str, typer.Option("--pretraining", help="Objective, e.g. dinov3.")]
Pretrainings = Annotated[list[str] | None, typer.Option("--pretraining", help="Objective, e.g. dinov3; may repeat.")]
Licences = Annotated[list[str] | None, typer.Option("--license", help="Of the weights, e.g. apache-2.0; may repeat.")]
CostDevice = Annotated[
    str | None,
    typer.Option("--device", help="Device of time, memory and energy: cpu, cuda or part of its name, e.g. 'RTX 4090'."),
]
OwnOnly = Annotated[bool, typer.Option("--own-only", help="Only what you have trained yourself.")]
Import = Annotated[
    str | None, typer.Option("--import", help="Module or file.py that registers a backbone of your own with timm.")
]
HeadName = Annotated[Head, typer.Option("--head", help="Head that is attached.")]
Queries = Annotated[int | None, typer.Option("--queries", help="Queries K of luma and eomt; 100 unless given.")]
Classes = Annotated[int | None, typer.Option("--classes", help="Classes C; 150 unless given.")]
L2 = Annotated[
    int | None, typer.Option("--l2", help="Last blocks that queries meet: luma 1, eomt 3 to 5, unless given.")
]
TapSide = Annotated[
    Tap | None, typer.Option("--tap", help="What luma's queries read of a block: its output unless given.")
]
Prefix = Annotated[
    bool | None,
    typer.Option("--prefix/--no-prefix", help="luma: queries see class and register tokens; no unless given."),
]
FfnChoice = Annotated[
    Ffn | None, typer.Option("--ffn", help="luma: whose FFN; unless given the block's own where it lends one.")
]
EveryCard = Annotated[bool, typer.Option("--all", help="Every card at every one of its sizes, instead of names.")]
Anew = Annotated[
    bool,
    typer.Option("--count", help="Build on the meta device and count, head too; the closed form must agree."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Go ahead with more than 20 backbones without asking.")]


# Field of the configuration -> how the command line spells it.
_SPELLED = {
    "num_queries": "--queries",
    "num_classes": "--classes",
    "l2": "--l2",
    "tap": "--tap",
    "prefix": "--prefix",
    "ffn": "--ffn",
}


def head_config(
    head: Head = Head.luma,
    *,
    queries: int | None = None,
    classes: int | None = None,
    l2: int | None = None,
    tap: str | None = None,
    prefix: bool | None = None,
    ffn: str | None = None,
) -> HeadConfig:
    """The head of the options that were given; None stands for one that was not.

    Raises UsageError for an option that this head does not have, and for a value that is none.
    """
    return HeadConfig(**given_options(head, queries=queries, classes=classes, l2=l2, tap=tap, prefix=prefix, ffn=ffn))


def given_options(
    head: Head | None,
    *,
    queries: int | None = None,
    classes: int | None = None,
    l2: int | None = None,
    tap: str | None = None,
    prefix: bool | None = None,
    ffn: str | None = None,
) -> dict[str, Any]:
    """The options that were given, by field of the configuration; without a head those of luma are expected.

    Raises UsageError for an option that this head does not have, and for a value that is none.
    """
    given: dict[str, Any] = {"num_queries": queries, "num_classes": classes, "l2": l2}
    given |= {"tap": tap, "prefix": prefix, "ffn": ffn}
    asked = {name: value for name, value in given.items() if value is not None}
    name = (head or Head.luma).value
    foreign = [_SPELLED[option] for option in asked if option not in HAS[name]]
    if foreign:
        known = ", ".join(_SPELLED[option] for option in HAS[name] if option in _SPELLED) or "none"
        raise UsageError(
            f"{foreign[0]} says nothing to --head {name}, whose options are: {known}; leave {foreign[0]} out"
        )
    if l2 == 0:
        raise UsageError("--l2 is 0, expected at least 1; leave it out for the head's own number of blocks")
    return asked if head is None else {"name": name, **asked}


# Options that may be followed by more than one integer.
MANY_VALUED = frozenset({"--res"})
# Options whose value may be left out: what a bare one means, and what else may follow.
OPTIONAL_VALUED = {"--again": ("all", frozenset({"all", "failed"}))}
_HELP = ("-h", "--help")
_INTEGER = re.compile(r"[+-]?\d+")


def repeat_flags(arguments: Sequence[str], flags: Iterable[str] = MANY_VALUED) -> list[str]:
    """`arguments` with a many-valued flag repeated before each further integer after it.

    >>> repeat_flags(["--res", "512", "1024", "convnext_b"])
    ['--res', '512', '--res', '1024', 'convnext_b']
    """
    many, result, current = frozenset(flags), list[str](), ""
    after_value = False
    for position, argument in enumerate(arguments):
        if argument == "--":
            return result + list(arguments[position:])
        if argument in many:
            current, after_value = argument, False
        elif argument.partition("=")[0] in many:
            current, after_value = argument.partition("=")[0], True
        elif current and not after_value:
            after_value = True
        elif current and _INTEGER.fullmatch(argument):
            result.append(current)
        else:
            current = ""
        result.append(argument)
    return result


def complete_flags(arguments: Sequence[str]) -> list[str]:
    """`arguments` with the default put after an option whose value was left out.

    >>> complete_flags(["vit_b", "--again", "--json"])
    ['vit_b', '--again', 'all', '--json']
    """
    result = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        result.append(argument)
        default, values = OPTIONAL_VALUED.get(argument, ("", frozenset()))
        if default and following not in values:
            result.append(default)
    return result


class ManyValued(TyperCommand):
    """Command class that accepts several integers after one `--res`, and `--again` without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args` after repeating and completing flags."""
        return super().parse_args(ctx, repeat_flags(complete_flags(args)))


class ListUnlessNamed(TyperGroup):
    """A group whose sub-command `list` may be left out: `luma runs` and `luma runs --json` are `luma runs list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args` with the sub-command put in where it was left out."""
        named = bool(args) and (not args[0].startswith("-") or args[0] in _HELP)
        return super().parse_args(ctx, args if named else ["list", *args])


# More than this many backbones from one command is rarely meant.
MANY = 20


def confirm_many(specs: Sequence[BackboneSpec], num_resolutions: int, yes: bool) -> None:
    """Ask whether to go on with more than MANY backbones. Without a terminal: UsageError naming `--yes`."""
    if len(specs) <= MANY or yes:
        return
    what = f"{len(specs)} backbones x {num_resolutions} resolutions ({specs[0].name} ... {specs[-1].name})"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{what}: more than {MANY}; narrow the pattern, or add --yes to go ahead")
    if not typer.confirm(f"{what}: go ahead?", err=True):
        raise typer.Abort


@contextmanager
def uncollected() -> Iterator[None]:
    """Reference cycles are left alone meanwhile; afterwards they are collected as before."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
