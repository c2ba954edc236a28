"""What a segmenter costs on one device: measured where it was measured, predicted with an interval elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luma_cli.speed.bench import Bench, bench_of
from luma_cli.speed.measured import Measured
from luma_cli.speed.quantity import Quantity, Workload
from luma_cli.units import BudgetKind


@dataclass(frozen=True, slots=True)
class SpeedModel:
    """Time, memory and energy of segmenters on one device under one set of conditions.

    why: for each kind, why there is no quantity at all; empty when there is one.
    """

    bench: Bench

    @staticmethod
    def load(
        measured: Sequence[Measured], device: str | None = None, *, head: str = "luma", environment: str | None = None
    ) -> SpeedModel:
        """The model of `device` (as the store, timm's table or the user name it), from rows that were measured there.

        device: None for the only one that was measured. environment: identity of the present machine as JSON, the
        latest measured one when None. Raises UsageError when several devices could be meant.
        """
        return SpeedModel(bench_of(measured, device, head=head, environment=environment))

    def quantity(self, kind: BudgetKind, workload: Workload) -> Quantity | None:
        """The cost of one segmenter; None where nothing can be said, and `why(kind)` says the reason."""
        return self.quantities(kind, [workload])[0]

    def quantities(self, kind: BudgetKind, workloads: Sequence[Workload]) -> list[Quantity | None]:
        """The costs of many segmenters, in their order."""
        return [self.bench.measured(kind, each) for each in workloads]

    def why(self, kind: BudgetKind) -> str:
        """Why a kind has no quantities beyond measured ones; empty when it has."""
        return f"{kind} was not measured on {self.bench.device_name or 'any device'}"
