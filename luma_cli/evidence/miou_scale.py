"""Whether the mIoU of a file is in percent or a fraction of one: detected, never guessed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from luma_cli.evidence.table_file import Record, TableFile

MiouScale = Literal["percent", "fraction"]
COLUMNS = ("miou_percent", "miou")


@dataclass(frozen=True, slots=True)
class Unclear:
    """Figures of at most 1, which may be fractions: how many of the file's figures, and the first with its row."""

    small: int
    figures: int
    example: float
    where: str

    @property
    def text(self) -> str:
        """What was found, and what the two readings mean."""
        mixed = f"{self.small} of {self.figures}" if self.small < self.figures else f"all {self.figures}"
        return (
            f"{mixed} mIoU figures are at most 1, the first {self.example:g} in {self.where}: a fraction is "
            f"{100 * self.example:g} percent, a percentage stays {self.example:g} percent"
        )


def figure(text: str, decimal_comma: bool = False) -> tuple[float, bool]:
    """The number of a cell and whether it has a percent sign.

    Raises ValueError that says what is wrong with it.

    >>> figure("48.1"), figure("48,1 %", decimal_comma=True)
    ((48.1, False), (48.1, True))
    """
    bare = text.removesuffix("%").strip()
    if not bare:
        raise ValueError("mIoU is empty")
    try:
        value = float(bare.replace(",", ".") if decimal_comma else bare)
    except ValueError as error:
        raise ValueError(f"mIoU is {text[:40]!r}, expected a number") from error
    if not math.isfinite(value):
        raise ValueError(f"mIoU is {text!r}, expected a finite number")
    return value, text.endswith("%")


def unclear(table: TableFile) -> Unclear | None:
    """What has to be asked before the file can be read; None when every figure can only be in percent."""
    figures = [(value, record) for record in table.records if (value := _bare(record, table.decimal_comma))]
    small = [(value, record) for value, record in figures if value <= 1]
    if not small:
        return None
    value, record = small[0]
    return Unclear(len(small), len(figures), value, record.where)


def in_percent(text: str, scale: MiouScale | None, decimal_comma: bool) -> float:
    """MIoU in percent. With `scale` fraction, figures of at most 1 without a percent sign are fractions.

    Raises ValueError for what is no mIoU.
    """
    value, signed = figure(text, decimal_comma)
    if scale == "fraction" and not signed and value <= 1:
        value = round(100 * value, 10)
    if not 0 < value < 100:
        raise ValueError(f"mIoU is {value:g} percent, expected between 0 and 100")
    return value


def cell(record: Record) -> str:
    """The cell with the mIoU."""
    return next((record.cells[name] for name in COLUMNS if record.cells.get(name)), "")


def _bare(record: Record, decimal_comma: bool) -> float | None:
    """The figure if it is above 0 and has no percent sign."""
    try:
        value, signed = figure(cell(record), decimal_comma)
    except ValueError:
        return None
    return None if signed or value <= 0 else value
