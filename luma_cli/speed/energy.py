"""Energy per image: predicted time on the device, times the power that its measured rows drew.

Only measured rows tell of power; without any there is no prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.speed.bench import Bench
from luma_cli.speed.measured import Measured
from luma_cli.speed.times import TimeKind, milliseconds

if TYPE_CHECKING:
    from luma_cli.speed.transfer import LogNormal

# Log deviation of power between models on one device: large ones fill it, small ones do not.
_MODEL_SD = 0.2


@dataclass(frozen=True, slots=True)
class Power:
    """Joules per millisecond, i.e. kilowatts, of segmenters on one device, as log mean and variance. num: rows."""

    kind: TimeKind
    log_mean: float
    variance: float
    num: int

    def energy(self, times: LogNormal) -> LogNormal:
        """Log joules per image from log milliseconds per image."""
        from luma_cli.speed.transfer import LogNormal

        return LogNormal(times.mean + self.log_mean, times.variance + self.variance)


def power_of(bench: Bench) -> Power | None:
    """Power of the bench by the rows that measured energy and time, at the plateau where that was timed; else None."""
    from math import log
    from statistics import fmean

    for kind in ("throughput", "latency"):
        logs = [log(row.energy_joules / ms) for row, ms in _rows(bench, kind) if row.energy_joules]
        if logs:
            return Power(kind, fmean(logs), _MODEL_SD**2 * (1 + 1 / len(logs)), len(logs))
    return None


def _rows(bench: Bench, kind: TimeKind) -> list[tuple[Measured, float]]:
    rows = (*bench.rows, *(row for row in bench.related if not bench.is_older(row)))
    return [(row, ms) for row in rows if row.energy_joules and (ms := milliseconds(kind, row))]
