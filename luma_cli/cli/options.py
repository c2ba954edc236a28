"""Options that several commands share, and how a command line is read."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer
from typer import Argument, Option
from typer.core import TyperCommand, TyperGroup

from luma_cli.catalogue.heads import HAS, RUNGS, VARIANTS, Ffn, HeadConfig, HeadName, ReadNorm, TapPoint
from luma_cli.errors import UsageError
from luma_cli.units import FlopConvention

if TYPE_CHECKING:
    from luma_cli.advise.question import Question
    from luma_cli.catalogue.spec import BackboneSpec
    from luma_cli.speed.devices import DeviceSpec


def complete_backbone(incomplete: str) -> list[str]:
    """Backbone names that start with the typed text, from the cards alone."""
    from luma_cli.catalogue.names import complete

    return complete(incomplete)


def complete_device(incomplete: str) -> list[str]:
    """Addresses of this machine and names of known devices that start with the typed text."""
    from luma_cli.speed.devices import load_devices

    names = ("cpu", "cuda", *(each.name for each in load_devices()))
    return [name for name in names if name.lower().startswith(incomplete.lower())]


Head = HeadName
Axis = Literal["gflops", "latency", "memory", "params", "energy", "throughput"]
Objective = Literal["miou", "miou-per-ms", "knee"]
Dataset = Literal["ade20k", "cityscapes"]
Compile = Literal["none", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]

_NAMES = Argument(
    help="Card (vit_b, vit_b.dinov3), timm name, pattern ('vit*'), hf-hub: or local-dir:",
    autocompletion=complete_backbone,
)
Names = Annotated[list[str], _NAMES]
NamesUnlessAll = Annotated[list[str] | None, _NAMES]
Resolutions = Annotated[
    list[int] | None, Option("--res", help="Side of the square input in pixels, e.g. --res 512 1024.")
]
Database = Annotated[Path | None, Option("--db", help="Database file. \\[default: $LUMA_DB or the data folder]")]
Json = Annotated[bool, Option("--json", help="Print JSON, schema 1.")]
Csv = Annotated[bool, Option("--csv", help="Print CSV with timm's column names.")]
Flops = Annotated[FlopConvention, Option("--flop-convention", help="FLOPs per multiply-add, in display and budgets.")]
EvidenceDataset = Annotated[Dataset, Option("--dataset", help="Dataset of the mIoU.")]
_FAMILIES = "isotropic, hierarchical, convolutional, hybrid, moe"
Family = Annotated[str, Option("--family", help=f"{_FAMILIES}.")]
Families = Annotated[list[str] | None, Option("--family", help=f"{_FAMILIES}; may repeat.")]
Pretraining = Annotated[str, Option("--pretraining", help="Objective, e.g. dinov3.")]
Pretrainings = Annotated[list[str] | None, Option("--pretraining", help="Objective, e.g. dinov3; may repeat.")]
Licences = Annotated[
    list[str] | None, Option("--license", help="Of the weights: commercial, permissive, or e.g. mit; may repeat.")
]
TrainBatch = Annotated[
    int | None,
    Option("--train-batch", min=1, help="Crops per pass for a budget like 8GiB-train. \\[default: the recipe's batch]"),
]
ImageSize = Annotated[
    str | None,
    Option("--image", help="WIDTHxHEIGHT of your images, for costs per image. \\[default: the dataset's own]"),
]
CostDevice = Annotated[
    str | None,
    Option(
        "--device",
        help="Device for time, memory and energy: cpu, cuda, or a name, e.g. 'RTX 4090', H100, or H100/eager "
        "(runtimes: eager, compile, tensorrt).",
        autocompletion=complete_device,
    ),
]
DeviceFile = Annotated[
    Path | None,
    Option("--device-spec", help="TOML file with the device's figures: name, fp16_tflops, bandwidth_gbs."),
]
CostAxis = Annotated[Axis, Option("--x", help="Cost of the front.")]
OwnOnly = Annotated[bool, Option("--own-only", help="Only your own runs.")]
Import = Annotated[str | None, Option("--import", help="Module or file.py that registers your own backbone with timm.")]
HeadChoice = Annotated[Head, Option("--head", help="Head on the backbone.")]
HeadAsked = Annotated[Head | None, Option("--head", help="Head on the backbone. \\[default: luma]")]
Queries = Annotated[int | None, Option("--queries", help="Queries of luma, eomt, mask2former. \\[default: 100]")]
Classes = Annotated[int | None, Option("--classes", help="Number of classes. \\[default: 150]")]
Adapter = Annotated[bool | None, Option("--adapter", help="mask2former: with a ViT-Adapter.")]
NoPixelDecoder = Annotated[
    bool | None, Option("--no-pixel-decoder", help="mask2former: read the backbone's maps directly.")
]
SingleScale = Annotated[bool | None, Option("--single-scale", help="mask2former: one map, no pixel decoder.")]
Masked = Annotated[bool | None, Option("--masked", help="eomt: masked attention in inference too.")]
L2 = Annotated[int | None, Option("--l2", help="Last blocks with queries. \\[default: luma 1, eomt 3 to 5]")]
TapSide = Annotated[TapPoint | None, Option("--tap", help="luma: where queries read a block. \\[default: its output]")]
Prefix = Annotated[
    bool | None,
    Option("--prefix/--no-prefix", help="luma: queries attend to class and register tokens. \\[default: no]"),
]
Variant = Annotated[
    str | None,
    Option("--variant", help=f"luma: {' or '.join(VARIANTS)}; `luma show` explains. \\[default: paper-page]"),
]
MaskStride = Annotated[
    int | None, Option("--mask-stride", help="luma: pixels per mask logit: 4, 8 or 16. \\[default: 4]")
]
LayerScale = Annotated[
    bool | None, Option("--layer-scale/--no-layer-scale", help="luma: scale what queries read. \\[default: no]")
]
QkvBias = Annotated[
    bool | None, Option("--qkv-bias/--no-qkv-bias", help="luma: biases of q, k and v. \\[default: yes]")
]
ReadNormChoice = Annotated[
    ReadNorm | None, Option("--read-norm", help="luma: norms before the read. \\[default: own LayerNorms]")
]
QueryNorm = Annotated[
    bool | None, Option("--query-norm/--no-query-norm", help="luma: final norm on queries. \\[default: yes]")
]
FfnChoice = Annotated[
    Ffn | None, Option("--ffn", help="luma: which FFN. \\[default: the block's own, if it can be shared]")
]
ManyYes = Annotated[bool, Option("--yes", "-y", help="Do not ask before more than 20 backbones.")]
Yes = Annotated[bool, Option("--yes", "-y", help="Do not ask.")]


# These options are last in every help text.
_LAST = ("convention", "as_json", "as_csv", "yes", "database")


def spread(command: Callable[..., Any]) -> Callable[..., Any]:
    """`command` with the fields of a dataclass of options as options, in place of each such parameter."""
    types = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in types.items() if is_dataclass(kind)}
    parameters: list[Parameter] = []
    for each in signature(command).parameters.values():
        if each.name not in groups:
            parameters.append(each.replace(kind=Parameter.KEYWORD_ONLY, annotation=types[each.name]))
            continue
        options = get_type_hints(groups[each.name], include_extras=True)
        for field in fields(groups[each.name]):
            default = Parameter.empty if field.default is MISSING else field.default
            annotation = options[field.name]
            parameters.append(Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
    parameters.sort(key=lambda each: _LAST.index(each.name) if each.name in _LAST else -1)

    @wraps(command)
    def with_groups(**given: Any) -> Any:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        return command(**given)

    # Typer reads both.
    with_groups.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_groups


# Option of a head -> field of its configuration, where they differ.
_FIELDS = {"queries": "num_queries", "classes": "num_classes"}


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """The options of a head; None for one that was not given."""

    head: HeadAsked = None
    queries: Queries = None
    classes: Classes = None
    l2: L2 = None
    tap: TapSide = None
    prefix: Prefix = None
    ffn: FfnChoice = None
    variant: Variant = None
    mask_stride: MaskStride = None
    layer_scale: LayerScale = None
    qkv_bias: QkvBias = None
    read_norm: ReadNormChoice = None
    query_norm: QueryNorm = None
    adapter: Adapter = None
    no_pixel_decoder: NoPixelDecoder = None
    single_scale: SingleScale = None
    masked: Masked = None

    @property
    def given(self) -> bool:
        """Whether any was."""
        return any(value is not None for value in asdict(self).values())

    def config(self) -> HeadConfig:
        """The head of these options. Raises UsageError as `given_options` does."""
        return HeadConfig(**given_options(**asdict(self)))


def given_options(head: Head | None, **options: Any) -> dict[str, Any]:
    """The given options, those that are not None, by field of the head's configuration; without a head: luma's.

    Raises UsageError for an option that this head does not have, and for --l2 0.
    """
    name = head or "luma"
    options = _with_rung(name, options)
    spelled = {_FIELDS.get(option, option): f"--{option.replace('_', '-')}" for option in options}
    asked = {_FIELDS.get(option, option): value for option, value in options.items() if value is not None}
    if foreign := [spelled[field] for field in asked if field not in HAS[name]]:
        known = ", ".join(spelled[field] for field in HAS[name] if field in spelled) or "none"
        raise UsageError(f"{foreign[0]} does not apply to --head {name} (supported: {known}); leave {foreign[0]} out")
    if asked.get("l2") == 0:
        raise UsageError("--l2 is 0, expected at least 1; leave it out for the head's own number of blocks")
    return asked if head is None else {"name": name, **asked}


def _with_rung(head: Head, options: dict[str, Any]) -> dict[str, Any]:
    """The options with the variant that flags such as --adapter name, and without these flags."""
    flags = [rung.replace("-", "_") for rungs in RUNGS.values() for rung in rungs]
    asked = [flag.replace("_", "-") for flag in flags if options.get(flag)]
    rest = {option: value for option, value in options.items() if option not in flags and option != "no_pixel_decoder"}
    if not asked:
        return rest
    if asked == ["no-pixel-decoder", "single-scale"]:  # one map leaves nothing for a pixel decoder
        asked = ["single-scale"]
    if foreign := [rung for rung in asked if rung not in RUNGS.get(head, ())]:
        of = next(name for name, rungs in RUNGS.items() if foreign[0] in rungs)
        raise UsageError(f"--{foreign[0]} does not apply to --head {head}; use --head {of}, or leave it out")
    if len(asked) > 1 or rest.get("variant"):
        other = asked[1] if len(asked) > 1 else f"variant {rest['variant']}"
        raise UsageError(f"--{asked[0]} and --{other} are both given, expected one of them; leave one out")
    return {**rest, "variant": asked[0]}


@dataclass(frozen=True, slots=True)
class Filters:
    """The candidates of `recommend`, `front`, `next` and `plot front`, and their head."""

    resolutions: Resolutions = None
    family: Families = None
    pretraining: Pretrainings = None
    licence: Licences = None
    head: HeadChoice = "luma"
    image: ImageSize = None
    train_batch: TrainBatch = None
    convention: Flops = "mac"
    database: Database = None

    def question(
        self,
        dataset: str,
        device: str | None,
        budgets: Iterable[str] = (),
        objective: Objective = "miou",
        spec_file: Path | None = None,
    ) -> Question:
        """The question to the advisor. Raises BadBudget, UsageError."""
        from luma_cli.advise.question import Question, tightest
        from luma_cli.catalogue.licences import expanded
        from luma_cli.units import parse_budget, parse_image

        parsed = tightest(parse_budget(each, self.convention) for each in budgets)
        if self.train_batch is not None and not any(budget.kind == "training_bytes" for budget in parsed):
            raise UsageError("--train-batch applies to a budget of training memory alone; add e.g. --budget 8GiB-train")
        return Question(
            dataset=dataset,
            budgets=parsed,
            objective=objective,
            resolutions=tuple(self.resolutions or ()),
            families=frozenset(self.family or ()),
            pretrainings=frozenset(self.pretraining or ()),
            licences=expanded(self.licence or ()),
            convention=self.convention,
            device=device,
            device_spec=read_device(device, spec_file),
            head=self.head,
            image=None if self.image is None else parse_image(self.image),
            train_batch=self.train_batch or 0,
        )


def read_device(device: str | None, spec_file: Path | None) -> DeviceSpec | None:
    """The specification in the file, None without one. Raises UsageError, also where a device is named beside it."""
    if spec_file is None:
        return None
    if device is not None:
        raise UsageError("--device and --device-spec are both given, expected one of them; leave one out")
    from luma_cli.speed.devices import read_spec

    return read_spec(spec_file)


def one_form(as_json: bool, as_csv: bool) -> None:
    """Raise UsageError when two forms of output are asked for."""
    if as_json and as_csv:
        raise UsageError("--json and --csv are both given, expected one of them; leave one out")


def print_answer(found: Any, as_json: bool, print_text: Callable[..., None], *more: Any) -> None:
    """Print an answer to stdout: as JSON, or with `print_text`, which may take more arguments."""
    from luma_cli.report.table import print_json

    if as_json:
        print_json(found)
    else:
        print_text(found, *more)


def can_ask() -> bool:
    """Whether somebody can be asked on stderr."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, refusal: str) -> None:
    """Ask, and raise typer.Abort when the user declines. Without a terminal: UsageError with the refusal."""
    if not can_ask():
        raise UsageError(refusal)
    if not typer.confirm(question, err=True):
        raise typer.Abort


MANY = 20  # a pattern that matches more backbones is rarely meant


def confirm_many(specs: Sequence[BackboneSpec], num_resolutions: int, yes: bool) -> None:
    """Ask before more than MANY backbones. Without a terminal: UsageError that names `--yes`."""
    if len(specs) > MANY and not yes:
        what = f"{len(specs)} backbones x {num_resolutions} resolutions ({specs[0].name} ... {specs[-1].name})"
        confirm(f"{what}: go ahead?", f"{what}: more than {MANY}; narrow the pattern, or add --yes to go ahead")


# Options that may be followed by several values -> what further values look like.
MANY_VALUED = {"--res": re.compile(r"[+-]?\d+"), "--split": re.compile("train|val")}
# Options whose value may be left out: what a bare one means, and what else may follow.
OPTIONAL_VALUED = {"--again": ("all", frozenset({"all", "failed"}))}
_HELP = ("-h", "--help")


def repeat_flags(arguments: Sequence[str]) -> list[str]:
    """`arguments` with a many-valued flag repeated before each further value after it.

    >>> repeat_flags(["--res", "512", "1024", "convnext_b"])
    ['--res', '512', '--res', '1024', 'convnext_b']
    """
    result, current, after_value = list[str](), "", False
    for position, argument in enumerate(arguments):
        if argument == "--":
            return result + list(arguments[position:])
        flag, _, value = argument.partition("=")
        if flag in MANY_VALUED:
            current, after_value = flag, bool(value)
        elif current and not after_value:
            after_value = True
        elif current and MANY_VALUED[current].fullmatch(argument):
            result.append(current)
        else:
            current = ""
        result.append(argument)
    return result


def complete_flags(arguments: Sequence[str]) -> list[str]:
    """`arguments` with the default after an option whose value was left out.

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
    """Command class that accepts several values after one `--res` or `--split`, and `--again` without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args` after repeating and completing flags."""
        return super().parse_args(ctx, repeat_flags(complete_flags(args)))


class ListUnlessNamed(TyperGroup):
    """A group whose sub-command `list` may be left out: `luma runs --json` is `luma runs list --json`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse `args` with `list` in front where no sub-command is named."""
        named = bool(args) and (not args[0].startswith("-") or args[0] in _HELP)
        return super().parse_args(ctx, args if named else ["list", *args])


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the collection of reference cycles.

    In `luma recommend --budget 200gflops` 164 collections freed 11 objects and took 6% of the CPU time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
