"""The head's configuration: part of every model and of every stored row. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from luma_cli.errors import UsageError

HeadName = Literal["luma", "none"]
Ffn = Literal["auto", "reused", "fresh"]
Tap = Literal["output"]


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """What is attached to the tapped block.

    `ffn="auto"` reuses the backbone's own FFN where its last patch-grid block has a token-wise one, and takes a fresh
    FFN otherwise; `width_cap` bounds the width of a head with a fresh FFN (arXiv 2607.00687 leaves it open: at 2048
    channels the head would be 114 M parameters, larger than a ResNet-50).
    """

    name: HeadName = "luma"
    num_queries: int = 100
    num_classes: int = 150
    l2: int = 1
    tap: Tap = "output"
    ffn: Ffn = "auto"
    width_cap: int = 768

    def __post_init__(self) -> None:
        for field in ("num_queries", "num_classes", "width_cap"):
            if getattr(self, field) < 1:
                raise UsageError(f"{field} is {getattr(self, field)}, expected at least 1")
        if self.l2 != 1:
            raise UsageError(f"l2 is {self.l2}: this version taps one block, use l2=1")
