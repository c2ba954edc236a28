"""Which segmenter to measure first, and next: the one whose time tells most about the times of all the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from luma_cli.speed.quantity import Workload
from luma_cli.speed.transfer import SHIPPED, Points, Spread, covariance

if TYPE_CHECKING:
    from luma_cli.speed.features import Floats

# Beyond this many candidates an even sample of them stands for all: the choice is cubic in their number.
_MOST_CANDIDATES = 600


@dataclass(frozen=True, slots=True)
class Anchor:
    """A segmenter worth measuring. factor_before, factor_after: what times are uncertain by, as a factor, on average
    over all candidates and in 80 % of cases (1.1: within 10 %).
    """

    workload: Workload
    factor_before: float
    factor_after: float

    @property
    def reason(self) -> str:
        """One line: what measuring it does for all the others."""
        what = f"measuring {self.workload.architecture} at {self.workload.resolution} px"
        after = f"leaves times uncertain by a factor of {self.factor_after:.2f}"
        before = "unknown" if self.factor_before > 10 else f"{self.factor_before:.2f}"
        return f"{what} {after} on average over the candidates (before: {before}), the least of any single measurement"


def choose(
    points: Points,
    workloads: Sequence[Workload],
    num: int,
    measured: Points | None = None,
    spread: Spread = SHIPPED,
) -> list[Anchor]:
    """The `num` candidates to measure, in order, each given those before it: greatest expected variance reduction.

    measured: what was measured already. The choice is greedy; ties go to the earlier candidate.
    """
    kept = sorted(
        {round(i * len(points) / _MOST_CANDIDATES) for i in range(_MOST_CANDIDATES)} & set(range(len(points)))
    )
    indices = list(range(len(points))) if len(points) <= _MOST_CANDIDATES else kept
    chosen = indices_to_measure(points[indices], num, measured, spread)
    return [Anchor(workloads[indices[index]], _factor(before), _factor(after)) for index, before, after in chosen]


def indices_to_measure(
    points: Points, num: int, measured: Points | None = None, spread: Spread = SHIPPED
) -> list[tuple[int, float, float]]:
    """(index, mean variance of log time before, after) of the points to measure, in order."""
    import numpy as np

    total = _posterior_covariance(points, measured, spread)
    chosen: list[tuple[int, float, float]] = []
    for _ in range(min(num, len(points))):
        diagonal = np.maximum(np.diag(total), 1e-12)
        gains = (total**2).sum(axis=0) / diagonal
        gains[[index for index, _, _ in chosen]] = -1.0
        best = int(np.argmax(gains))
        after = total - np.outer(total[:, best], total[:, best]) / diagonal[best]
        chosen.append((best, float(diagonal.mean()), float(np.maximum(np.diag(after), 0).mean())))
        total = after
    return chosen


def _posterior_covariance(points: Points, measured: Points | None, spread: Spread) -> Floats:
    import numpy as np

    total = covariance(points, points, spread) + np.diag(points.variance + spread.noise**2)
    if measured is None or not len(measured):
        return total
    gram = covariance(measured, measured, spread) + np.diag(measured.variance + spread.noise**2)
    cross = covariance(points, measured, spread)
    left: Floats = total - cross @ np.linalg.solve(gram, cross.T)
    return left


def _factor(variance: float) -> float:
    from math import exp

    return exp(min(1.2815515594 * sqrt(variance), 50.0))
