"""A Typer command whose options are as users write them: `--res 512 1024` and a bare `--again`, wherever they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

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
