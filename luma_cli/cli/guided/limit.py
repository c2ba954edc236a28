"""What can bind: each kind of limit with its units and a sensible amount, and the budget that typed text means."""

from __future__ import annotations

import re
from dataclasses import dataclass

from luma_cli.errors import BadBudget
from luma_cli.units import BudgetKind, parse_budget

_BARE_NUMBER = re.compile(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class Limit:
    """One kind of limit.

    label: as a list shows it. quantity: as a sentence names it. kinds: of the budgets that state it. unit: of a bare
    number. example: a usual amount. axis: of `luma front --x`.
    on_device: whether it means nothing without a device.
    """

    key: str
    label: str
    quantity: str
    kinds: tuple[BudgetKind, ...]
    unit: str
    example: str
    axis: str
    on_device: bool

    def budget(self, typed: str) -> str:
        """The budget, as `--budget` takes it. Raises BadBudget with an example.

        >>> LIMITS["compute"].budget("200"), LIMITS["time"].budget("30 fps")
        ('200gflops', '30fps')
        """
        text = "".join(typed.split())
        text += self.unit if _BARE_NUMBER.fullmatch(text) else ""
        try:
            is_ours = parse_budget(text).kind in self.kinds
        except BadBudget:
            is_ours = False
        if not is_ours:
            raise BadBudget(f"{typed.strip()!r} is no limit on {self.quantity}; try {self.example}")
        return text

    def problem(self, typed: str) -> str:
        """What is wrong with the typed amount, or ""."""
        try:
            self.budget(typed)
        except BadBudget as error:
            return str(error)
        return ""


LIMITS: dict[str, Limit] = {
    each.key: each
    for each in (
        Limit("compute", "GFLOPs of one image", "GFLOPs", ("macs",), "gflops", "200gflops", "gflops", False),
        Limit(
            "time", "time per image (ms), or frames per second", "time", ("ms", "fps"), "ms", "20ms or 50fps",
            "latency", True,
        ),
        Limit(
            "throughput", "images per second, many at once", "throughput", ("images_per_second",), "img/s", "500img/s",
            "throughput", True,
        ),
        Limit("memory", "memory (GiB)", "memory", ("bytes",), "GiB", "8GiB", "memory", True),
        Limit("params", "parameters (millions)", "parameters", ("params",), "Mparams", "100Mparams", "params", False),
        Limit("energy", "energy per image (J)", "energy", ("joules",), "J", "2J", "energy", True),
    )
}  # fmt: skip
