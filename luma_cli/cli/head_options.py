"""The head that a command's options describe. An option that the head does not have is refused, not passed over."""

from __future__ import annotations

from typing import Any

from luma_cli.catalogue.heads import HAS, HeadConfig
from luma_cli.cli.options import Head
from luma_cli.errors import UsageError

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
