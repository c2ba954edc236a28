"""The head's configuration: part of every model and of every stored row. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from luma_cli.errors import UsageError

HeadName = Literal["luma", "eomt", "linear", "none"]
Ffn = Literal["auto", "reused", "fresh"]
Tap = Literal["output", "input"]


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
        if self.l2 < 0:
            raise UsageError(f"l2 is {self.l2}, expected the number of tapped blocks, 1 or more (0: the head's own)")
        if self.l2 == 0 and self.name != "eomt":
            object.__setattr__(self, "l2", 1)

    def identity(self) -> dict[str, Any]:
        """The fields that decide whether two heads are the same; an option at its default adds nothing to them."""
        values = asdict(self)
        if not self.prefix:
            values.pop("prefix")
        return values
