"""The head's configuration: part of every model and of every stored row. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Literal, get_args

from luma_cli.errors import UsageError

HeadName = Literal["luma", "eomt", "linear", "none"]
Ffn = Literal["auto", "reused", "fresh"]
Tap = Literal["output", "input"]

# The options that each head has; the others say nothing to it.
HAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "luma": ("num_queries", "num_classes", "l2", "tap", "prefix", "ffn", "width_cap"),
        "eomt": ("num_queries", "num_classes", "l2"),
        "linear": ("num_classes",),
        "none": (),
    }
)
_CHOICES = MappingProxyType({"name": get_args(HeadName), "ffn": get_args(Ffn), "tap": get_args(Tap)})


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """What is attached to the backbone.

    name: `luma` (arXiv 2607.00687), `eomt` (arXiv 2503.19108), `linear` (batch norm and a 1 x 1 convolution), `none`.
    l2: how many of the last blocks the queries meet; 0 means the head's own number, 1 for LUMA, by depth for EoMT.
    tap: whether LUMA's queries read the output or the input of a tapped block; prefix: whether they see class and
    register tokens as well.
    `ffn="auto"` reuses the backbone's own FFN where its last patch-grid block has a token-wise one, and takes a fresh
    FFN otherwise; `width_cap` bounds the width of a head with a fresh FFN (arXiv 2607.00687 leaves it open: at 2048
    channels the head would be 114 M parameters, larger than a ResNet-50).
    """

    name: HeadName = "luma"
    num_queries: int = 100
    num_classes: int = 150
    l2: int = 0
    tap: Tap = "output"
    ffn: Ffn = "auto"
    width_cap: int = 768
    prefix: bool = False

    def __post_init__(self) -> None:
        for field in ("num_queries", "num_classes", "width_cap"):
            if getattr(self, field) < 1:
                raise UsageError(f"{field} is {getattr(self, field)}, expected at least 1")
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                raise UsageError(f"{field} is {getattr(self, field)!r}, expected one of {', '.join(known)}")
        if self.l2 < 0:
            raise UsageError(f"l2 is {self.l2}, expected the number of tapped blocks, 1 or more (0: the head's own)")
        if self.l2 == 0 and self.name != "eomt":
            object.__setattr__(self, "l2", 1)
        self._refuse_foreign()

    def _refuse_foreign(self) -> None:
        """Refuse an option that is set although the head does not have it; `none` keeps those of the head left out."""
        default = {field.name: field.default for field in fields(self)} | ({} if self.name == "eomt" else {"l2": 1})
        foreign = [name for name in default if name not in ("name", *HAS[self.name])]
        changed = [name for name in foreign if getattr(self, name) != default[name]]
        if changed and self.name != "none":
            raise UsageError(
                f"{changed[0]}={getattr(self, changed[0])!r} says nothing to head {self.name!r}; leave it out"
            )

    def identity(self) -> dict[str, Any]:
        """The fields that decide whether two heads are the same; an option at its default adds nothing to them."""
        values = asdict(self)
        if not self.prefix:
            values.pop("prefix")
        return values
