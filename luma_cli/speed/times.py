"""Time per image on a device: evidence from its measured rows, a prediction for every other segmenter.

Latency (batch 1) and throughput (at the plateau batch) are two quantities: each is learned from its own rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING, Literal

from luma_cli.speed.bench import NOISY_SD, Bench
from luma_cli.speed.quantity import Measured, Workload
from luma_cli.speed.reference import LATENCY, Lineup
from luma_cli.speed.transfer import SHIPPED, LogNormal, Points, Spread, covariance, log_evidence, posterior

if TYPE_CHECKING:
    from luma_cli.speed.transfer import Floats


# Overheads in units of the time of a classifier in the middle of the shipped table, one image at large batches: on the
# fastest shipped GPU 0.35 ms, so that the largest stands for 22 ms there.
# Overheads less likely than this share of the likeliest one are not followed.
_NEGLIGIBLE = 0.003
# Log deviation of one network's overhead from the device's: networks differ in their number of kernels.
_NETWORK_SD = 0.4
_OVERHEADS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def predict_latency(targets: Points, measured: Points, log_ms: Floats, spread: Spread, middle: float) -> LogNormal:
    """Log latency of the targets: mean and variance of the mixture over overheads. middle: log ms of the unit."""
    import numpy as np

    overheads = [np.log(each) + middle if each else -np.inf for each in _OVERHEADS]
    evidence = np.array([log_evidence(with_overhead(measured, each), log_ms, spread) for each in overheads])
    weights = np.exp(evidence - evidence.max())
    likely = weights > _NEGLIGIBLE
    weights = weights[likely] / weights[likely].sum()
    each = [
        posterior(with_overhead(targets, overhead), with_overhead(measured, overhead), log_ms, spread)
        for overhead in np.array(overheads)[likely].tolist()
    ]
    means = np.stack([said.mean for said in each])
    variances = np.stack([said.variance for said in each])
    mean = weights @ means
    return LogNormal(mean, weights @ variances + weights @ (means - mean) ** 2)


def with_overhead(points: Points, overhead: float) -> Points:
    """The points when each takes exp(overhead) ms more; what is uncertain of the rest counts by its share."""
    import numpy as np

    base = np.logaddexp(points.base, overhead)
    share = np.exp(points.base - base)
    variance = points.variance * share**2 + (_NETWORK_SD * (1 - share)) ** 2
    return replace(points, base=base, variance=variance, contrasts=points.contrasts * share[:, None])


TimeKind = Literal["latency", "throughput"]
# Sides from which segmenters with a head are extrapolated until one was measured there, and the deviation that adds:
# small to large, the audit finds 3 to 7 % for known networks, and nothing ships that tells of heads.
LARGE_SIDE, _LARGE_SD = 512, 0.15
_OTHER_CLASSES_SD, _OLDER_SD = 0.03, 0.05
# Rows beyond this many no longer narrow anything, and solving is cubic in them.
_MOST_ROWS = 150


@dataclass(frozen=True, slots=True)
class Evidence:
    """Measured times of one kind on one bench. num_here: rows that differ from the target in the model alone."""

    points: Points
    log_ms: Floats
    num_here: int
    num_related: int


def evidence(kind: TimeKind, bench: Bench, lineup: Lineup) -> Evidence:
    """The bench's rows that measured this kind; the user's own modules are left out, as their names mean nothing."""
    import numpy as np

    here = _evenly([row for row in bench.rows if milliseconds(kind, row) and not row.own_module])
    others = [row for row in bench.related if milliseconds(kind, row) and not row.own_module]
    related = _evenly(others, _MOST_ROWS - len(here))
    rows = [*here, *related]
    environments = [row.conditions.environment if bench.is_older(row) else "" for row in rows]
    points = lineup.reference.points([workload_of(row) for row in rows], environments=environments)
    variance = np.array([_own_variance(kind, row, bench) for row in rows])
    log_ms = np.log(np.array([milliseconds(kind, row) for row in rows], dtype=float))
    noisy = Points(
        points.features, points.base, points.variance + variance, points.contrasts, points.heads, environments
    )
    return Evidence(noisy, log_ms, len(here), len(related))


def predict(kind: TimeKind, targets: Points, seen: Evidence, lineup: Lineup, far: Sequence[bool]) -> LogNormal:
    """Log milliseconds per image of the targets. far: which are `extrapolated`."""
    import numpy as np

    spread = spread_of(kind, lineup)
    if kind == "latency":
        said = predict_latency(targets, seen.points, seen.log_ms, spread, lineup.reference.middle)
    else:
        said = posterior(targets, seen.points, seen.log_ms, spread)
    return LogNormal(said.mean, said.variance + _LARGE_SD**2 * np.array(far, dtype=float))


def spread_of(kind: TimeKind, lineup: Lineup) -> Spread:
    """The spreads of the kind: latency against times at large batches has wider ones, not narrower than the law's."""
    if kind == "throughput":
        return lineup.spread
    from dataclasses import fields

    names = [field.name for field in fields(Spread)]
    wider = {name: max(getattr(LATENCY, name), getattr(lineup.spread, name)) for name in names}
    return Spread(**{**wider, "scale": LATENCY.scale})


def milliseconds(kind: TimeKind, row: Measured) -> float | None:
    """Milliseconds per image that the row measured, None where it did not."""
    if kind == "latency":
        return row.latency_ms or None
    return 1000 / row.images_per_second if row.images_per_second else None


def workload_of(row: Measured) -> Workload:
    """The segmenter that the row measured."""
    head, num_classes = row.conditions.head, row.conditions.num_classes
    return Workload(row.architecture, row.resolution, row.family, row.macs, None, row.params, head, num_classes)


def extrapolated(workloads: Sequence[Workload], bench: Bench) -> list[bool]:
    """Which segmenters with a head are asked at a size from which on none was measured here."""
    rows = (row for row in (*bench.rows, *bench.related) if not bench.is_older(row))
    if any(row.resolution >= LARGE_SIDE and row.conditions.head != "none" for row in rows):
        return [False] * len(workloads)
    return [each.head != "none" and each.resolution >= LARGE_SIDE for each in workloads]


def _own_variance(kind: TimeKind, row: Measured, bench: Bench) -> float:
    noisy = NOISY_SD**2 if kind in row.noisy else 0.0
    older = _OLDER_SD**2 if bench.is_older(row) else 0.0
    known = bench.conditions is not None and row.conditions.num_classes == bench.conditions.num_classes
    return noisy + older + (0.0 if known else _OTHER_CLASSES_SD**2)


def _evenly(rows: Sequence[Measured], most: int = _MOST_ROWS) -> list[Measured]:
    """At most `most` rows, spread evenly over architectures and sizes."""
    ordered = sorted(rows, key=lambda row: (row.architecture, row.resolution, row.fingerprint))
    if len(ordered) <= most:
        return ordered
    return [ordered[round(i * len(ordered) / most)] for i in range(most)] if most > 0 else []


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
