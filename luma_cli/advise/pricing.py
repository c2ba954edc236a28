"""Costs of candidates by kind: counted ones from the cost table, the others from what is known of one device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from luma_cli.advise import budgets as held
from luma_cli.advise.budgets import Priced
from luma_cli.advise.candidates import Candidate
from luma_cli.speed.quantity import Quantity, Workload
from luma_cli.units import BudgetKind

if TYPE_CHECKING:
    from luma_cli.speed.anchor import Anchor


class Speed(Protocol):
    """Time, memory and energy on one device; `luma_cli.speed.model.SpeedModel` is one."""

    def quantities(self, kind: BudgetKind, workloads: Sequence[Workload]) -> Sequence[Quantity | None]:
        """The cost of each workload in the kind's own unit; None where it cannot be told."""
        ...

    def why(self, kind: BudgetKind) -> str:
        """Why nothing is known of a kind; empty when something is."""
        ...

    def anchors(self, workloads: Sequence[Workload], num: int = 1, kind: BudgetKind = "ms") -> Sequence[Anchor]:
        """Which of the segmenters to measure, because that tells most about the others."""
        ...


def workload(candidate: Candidate, head: str, num_classes: int) -> Workload:
    """What is timed of a candidate."""
    return Workload(
        architecture=candidate.architecture,
        resolution=candidate.resolution,
        family=candidate.family,
        macs=candidate.macs,
        params=candidate.params,
        head=head,
        num_classes=num_classes,
    )


def price(
    candidates: Sequence[Candidate], kinds: Iterable[BudgetKind], speed: Speed | None, head: str, num_classes: int
) -> list[Priced]:
    """The candidates with multiply-adds, parameters and the asked kinds, in order. Costs are per architecture."""
    costs = [_counted(each) for each in candidates]
    asked = [kind for kind in dict.fromkeys(kinds) if kind not in held.EXACT]
    if speed is not None and asked:
        loads = [workload(each, head, num_classes) for each in candidates]
        distinct = {(each.architecture, each.resolution): each for each in loads}
        for kind in asked:
            known = dict(zip(distinct, speed.quantities(kind, list(distinct.values())), strict=True))
            for load, cost in zip(loads, costs, strict=True):
                quantity = known[load.architecture, load.resolution]
                if quantity is not None:
                    cost[kind] = quantity
    return [Priced(each, cost) for each, cost in zip(candidates, costs, strict=True)]


def _counted(candidate: Candidate) -> dict[BudgetKind, Quantity]:
    counts: tuple[tuple[BudgetKind, int | None], ...] = (("macs", candidate.macs), ("params", candidate.params))
    return {kind: Quantity(kind, value, value, value, "exact") for kind, value in counts if value is not None}
