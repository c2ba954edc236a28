"""Options that several commands share, spelled once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

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
