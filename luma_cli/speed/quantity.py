"""One cost of a segmenter on a device, with where it comes from and how sure it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from luma_cli.units import BudgetKind

if TYPE_CHECKING:
    from luma_cli.store.profiles import Measured

# The central 80 % of a normal distribution are this many standard deviations to each side.
Z80 = 1.2815515655446004

Key = tuple[str, int, str, int]
Origin = Literal["exact", "measured", "shipped", "predicted"]


@dataclass(frozen=True, slots=True)
class Workload:
    """What is timed: one segmenter, batch conditions aside.

    macs, activations, params: of backbone and head together, None when not known. resolution: side in pixels.
    """

    architecture: str
    resolution: int
    family: str = "unknown"
    macs: int | None = None
    activations: int | None = None
    params: int | None = None
    head: str = "luma"
    num_classes: int = 150

    @property
    def key(self) -> Key:
        """What names a segmenter among the rows of one set of conditions."""
        return self.architecture, self.resolution, self.head, self.num_classes


@dataclass(frozen=True, slots=True)
class Quantity:
    """A cost in the kind's own unit (`units.BudgetKind`) with its central 80 % interval.

    origin: `exact` (counted), `measured` (on this device), `shipped` (measured elsewhere by us or timm on this very
    device model), `predicted`. low, high: equal to value when exact. note: one line a reader must know, e.g.
    `extrapolated: nothing at 512 px or more with a head was measured here`.
    """

    kind: BudgetKind
    value: float
    low: float
    high: float
    origin: Origin
    extrapolated: bool = False
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Fields as every command prints them."""
        return {
            "value": self.value,
            "interval_80": [self.low, self.high],
            "source": self.origin,
            "extrapolated": self.extrapolated,
            "note": self.note or None,
        }


def segmenter_of(row: Measured) -> Workload:
    """The segmenter that was measured."""
    head, num_classes = row.conditions.head, row.conditions.num_classes
    return Workload(row.architecture, row.resolution, row.family, row.macs, None, row.params, head, num_classes)
