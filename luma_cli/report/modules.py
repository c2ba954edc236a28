"""Multiply-adds per module, our count beside fvcore's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luma_cli.report.table import Table, columns, number, print_table

if TYPE_CHECKING:
    from luma_cli.measure.by_module import ModuleCost


def print_modules(title: str, modules: Sequence[ModuleCost]) -> None:
    """Print one row per module; the first is the whole."""
    whole = modules[0]
    rows = tuple(
        (
            module.path or "segmenter",
            number(module.macs / 1e9, 3),
            number(None if module.fvcore_macs is None else module.fvcore_macs / 1e9, 3),
            f"{module.macs / whole.macs:.1%}",
            number(module.params / 1e6, 3),
        )
        for module in modules
    )
    table = Table(
        columns("module", "GMACs>", "fvcore>", "share>", "params M>"),
        rows,
        title=title,
        caption="GMACs: multiply-adds / 10^9; `caller > name`: borrowed by the caller, which fvcore cannot tell",
    )
    print_table(table)
