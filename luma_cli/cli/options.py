"""Options that several commands share, spelled once, and how a command line is read."""

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

from luma_cli.catalogue.heads import HAS, Ffn, HeadConfig, HeadName, TapPoint
from luma_cli.errors import UsageError
from luma_cli.units import FlopConvention

if TYPE_CHECKING:
    from luma_cli.advise.question import Question
    from luma_cli.catalogue.spec import BackboneSpec


def complete_backbone(incomplete: str) -> list[str]:
    """Backbone names that start with what was typed, from the cards alone."""
    from luma_cli.catalogue.names import complete

    return complete(incomplete)


Head = HeadName
Axis = Literal["gflops", "latency", "memory", "params", "energy", "throughput"]
Dataset = Literal["ade20k", "cityscapes"]
Compile = Literal["none", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]

_NAMES = Argument(
    help="Card (vit_b, vit_b.dinov3), timm name, glob, hf-hub: or local-dir:", autocompletion=complete_backbone
)
Names = Annotated[list[str], _NAMES]
NamesUnlessAll = Annotated[list[str] | None, _NAMES]
Resolutions = Annotated[
    list[int] | None, Option("--res", help="Side of the square input in pixels; several may follow.")
]
Database = Annotated[Path | None, Option("--db", help="Database file. \\[default: $LUMA_DB or the data folder]")]
Json = Annotated[bool, Option("--json", help="Print JSON, schema 1.")]
Csv = Annotated[bool, Option("--csv", help="Print CSV with timm's column names.")]
Flops = Annotated[FlopConvention, Option("--flop-convention", help="FLOPs per multiply-add, in display and budgets.")]
EvidenceDataset = Annotated[Dataset, Option("--dataset", help="Dataset of the accuracy.")]
_FAMILIES = "isotropic, hierarchical, convolutional, hybrid, moe"
Family = Annotated[str, Option("--family", help=f"{_FAMILIES}.")]
Families = Annotated[list[str] | None, Option("--family", help=f"{_FAMILIES}; may repeat.")]
Pretraining = Annotated[str, Option("--pretraining", help="Objective, e.g. dinov3.")]
Pretrainings = Annotated[list[str] | None, Option("--pretraining", help="Objective, e.g. dinov3; may repeat.")]
Licences = Annotated[list[str] | None, Option("--license", help="Of the weights, e.g. apache-2.0; may repeat.")]
CostDevice = Annotated[
    str | None,
    Option("--device", help="Device of time, memory and energy: cpu, cuda or part of its name, e.g. 'RTX 4090'."),
]
CostAxis = Annotated[Axis, Option("--x", help="What the front costs.")]
OwnOnly = Annotated[bool, Option("--own-only", help="Only what you have trained yourself.")]
Import = Annotated[
    str | None, Option("--import", help="Module or file.py that registers a backbone of your own with timm.")
]
HeadChoice = Annotated[Head, Option("--head", help="Head that is attached.")]
Queries = Annotated[int | None, Option("--queries", help="Queries K of luma and eomt; 100 unless given.")]
Classes = Annotated[int | None, Option("--classes", help="Classes C; 150 unless given.")]
L2 = Annotated[int | None, Option("--l2", help="Last blocks that queries meet: luma 1, eomt 3 to 5, unless given.")]
TapSide = Annotated[
    TapPoint | None, Option("--tap", help="What luma's queries read of a block: its output unless given.")
]
Prefix = Annotated[
    bool | None, Option("--prefix/--no-prefix", help="luma: queries see class and register tokens; no unless given.")
]
FfnChoice = Annotated[
    Ffn | None, Option("--ffn", help="luma: whose FFN; unless given the block's own where it lends one.")
]
ManyYes = Annotated[bool, Option("--yes", "-y", help="Go ahead with more than 20 backbones without asking.")]
Yes = Annotated[bool, Option("--yes", "-y", help="Do not ask.")]


# Options that the help names last, whatever group they came with.
_LAST = ("convention", "as_json", "as_csv", "yes", "database")


def spread(command: Callable[..., Any]) -> Callable[..., Any]:
    """`command` with the options of a group in place of each parameter whose type is a dataclass of options."""
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


# Option of a head -> field of its configuration.
_FIELDS = {
    "queries": "num_queries",
    "classes": "num_classes",
    "l2": "l2",
    "tap": "tap",
    "prefix": "prefix",
    "ffn": "ffn",
}


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """The options of a head; None stands for one that was not given."""

    head: HeadChoice = "luma"
    queries: Queries = None
    classes: Classes = None
    l2: L2 = None
    tap: TapSide = None
    prefix: Prefix = None
    ffn: FfnChoice = None

    def config(self) -> HeadConfig:
        """The head they describe. Raises UsageError as `given_options` does."""
        return HeadConfig(**given_options(**asdict(self)))


def given_options(head: Head | None, **options: Any) -> dict[str, Any]:
    """The options that were given, by field of the configuration; without a head those of luma are expected.

    options: by name on the command line, None for one that was not given. Raises UsageError for an option that this
    head does not have, and for a value that is none.
    """
    asked = {_FIELDS[name]: value for name, value in options.items() if value is not None}
    name = head or "luma"
    spelled = {field: f"--{option}" for option, field in _FIELDS.items()}
    foreign = [spelled[field] for field in asked if field not in HAS[name]]
    if foreign:
        known = ", ".join(spelled[field] for field in HAS[name] if field in spelled) or "none"
        raise UsageError(
            f"{foreign[0]} says nothing to --head {name}, whose options are: {known}; leave {foreign[0]} out"
        )
    if asked.get("l2") == 0:
        raise UsageError("--l2 is 0, expected at least 1; leave it out for the head's own number of blocks")
    return asked if head is None else {"name": name, **asked}


@dataclass(frozen=True, slots=True)
class Filters:
    """Which candidates `recommend`, `front`, `next` and `plot front` ask about, with which head."""

    resolutions: Resolutions = None
    family: Families = None
    pretraining: Pretrainings = None
    licence: Licences = None
    head: HeadChoice = "luma"
    convention: Flops = "mac"
    database: Database = None

    def question(self, dataset: str, device: str | None, budgets: Iterable[str] = ()) -> Question:
        """What is asked of the advisor. Raises BadBudget."""
        from luma_cli.advise.question import Question, tightest
        from luma_cli.units import parse_budget

        return Question(
            dataset=dataset,
            budgets=tightest(parse_budget(each, self.convention) for each in budgets),
            resolutions=tuple(self.resolutions or ()),
            families=frozenset(self.family or ()),
            pretrainings=frozenset(self.pretraining or ()),
            licences=frozenset(self.licence or ()),
            convention=self.convention,
            device=device,
            head=self.head,
        )


def one_form(as_json: bool, as_csv: bool) -> None:
    """Refuse two forms of output at once, with UsageError."""
    if as_json and as_csv:
        raise UsageError("--json and --csv are both given, expected one of them; leave one out")


def can_ask() -> bool:
    """Whether somebody can be asked on stderr."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, refusal: str) -> None:
    """Ask before going on; typer.Abort when declined. Without a terminal: UsageError with the refusal."""
    if not can_ask():
        raise UsageError(refusal)
    if not typer.confirm(question, err=True):
        raise typer.Abort


# More than this many backbones from one command is rarely meant.
MANY = 20


def confirm_many(specs: Sequence[BackboneSpec], num_resolutions: int, yes: bool) -> None:
    """Ask whether to go on with more than MANY backbones. Without a terminal: UsageError naming `--yes`."""
    if len(specs) > MANY and not yes:
        what = f"{len(specs)} backbones x {num_resolutions} resolutions ({specs[0].name} ... {specs[-1].name})"
        confirm(f"{what}: go ahead?", f"{what}: more than {MANY}; narrow the pattern, or add --yes to go ahead")


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
