"""Time per image on a device, predicted from its measured rows.

Latency (batch 1) and throughput (at the plateau batch) are each learned from their own rows. To the times at large
batches latency adds launches and idle units:

    latency = scale x (reference + overhead)

The device's overhead is unknown: each value of a grid gives a Gaussian model (`transfer`), weighted by the measured
rows. With one measurement all stay likely and the interval is wide; with several sizes one of them wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from luma_cli.speed.bench import NOISY_SD, Bench
from luma_cli.speed.quantity import Workload, segmenter_of
from luma_cli.speed.reference import LATENCY, Lineup
from luma_cli.speed.transfer import (
    SHIPPED,
    Floats,
    LogNormal,
    Priors,
    Spread,
    covariance,
    gram_of,
    log_evidence,
    posterior,
)
from luma_cli.store.profiles import Measured

TimeKind = Literal["latency", "throughput"]
# From this side on, segmenters with a head are extrapolated until one is measured there, with this added deviation: the
# audit finds 3 to 7 % for known networks, and no results of heads ship.
LARGE_SIDE, _LARGE_SD = 512, 0.15
_OTHER_CLASSES_SD, _OLDER_SD = 0.03, 0.05
# More rows narrow nothing, and solving is cubic in them.
_MOST_ROWS = 150
# In units of the median classifier's time per image at large batches: 0.35 ms on the fastest shipped GPU, where the
# largest is 22 ms.
_OVERHEADS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# Overheads less likely than this share of the likeliest one are left out.
_NEGLIGIBLE = 0.003
# Log deviation of one network's overhead from the device's, as networks differ in their number of kernels.
_NETWORK_SD = 0.4


@dataclass(frozen=True, slots=True)
class MeasuredTimes:
    """Measured times of one kind. num_here: rows of the answering conditions. num_related: other evidence."""

    points: Priors
    log_ms: Floats
    num_here: int
    num_related: int


def evidence(kind: TimeKind, bench: Bench, lineup: Lineup) -> MeasuredTimes:
    """The bench's rows that measured this kind, without the user's own modules, whose names mean nothing."""
    here = _evenly([row for row in bench.rows if milliseconds(kind, row) and not row.own_module])
    others = [row for row in bench.related if milliseconds(kind, row) and not row.own_module]
    related = _evenly(others, _MOST_ROWS - len(here))
    rows = [*here, *related]
    environments = [row.conditions.environment if bench.is_older(row) else "" for row in rows]
    points = lineup.reference.points([segmenter_of(row) for row in rows], environments=environments)
    variance = np.array([_own_variance(kind, row, bench) for row in rows])
    log_ms = np.log(np.array([milliseconds(kind, row) for row in rows], dtype=float))
    return MeasuredTimes(replace(points, variance=points.variance + variance), log_ms, len(here), len(related))


def predict(kind: TimeKind, targets: Priors, seen: MeasuredTimes, lineup: Lineup, far: Sequence[bool]) -> LogNormal:
    """Log milliseconds per image of the targets. far: whether each is `extrapolated`."""
    spread = spread_of(kind, lineup)
    if kind == "latency":
        said = predict_latency(targets, seen.points, seen.log_ms, spread, lineup.reference.middle)
    else:
        said = posterior(targets, seen.points, seen.log_ms, spread)
    return LogNormal(said.mean, said.variance + _LARGE_SD**2 * np.array(far, dtype=float))


def predict_latency(targets: Priors, measured: Priors, log_ms: Floats, spread: Spread, middle: float) -> LogNormal:
    """Log latency of the targets: mean and variance of the mixture over overheads. middle: log ms of their unit."""
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


def with_overhead(points: Priors, overhead: float) -> Priors:
    """The points with exp(overhead) ms added; the variance of the rest counts by its share of the time."""
    base = np.logaddexp(points.base, overhead)
    share = np.exp(points.base - base)
    variance = points.variance * share**2 + (_NETWORK_SD * (1 - share)) ** 2
    return replace(points, base=base, variance=variance, contrasts=points.contrasts * share[:, None])


def spread_of(kind: TimeKind, lineup: Lineup) -> Spread:
    """The kind's spreads; those of latency are wider, and never narrower than the lineup's."""
    if kind == "throughput":
        return lineup.spread
    mine = asdict(lineup.spread)
    wider = {name: max(sd, mine[name]) for name, sd in asdict(LATENCY).items()}
    return Spread(**{**wider, "scale": LATENCY.scale})


def milliseconds(kind: TimeKind, row: Measured) -> float | None:
    """Measured milliseconds per image; None where not measured."""
    if kind == "latency":
        return row.latency_ms or None
    return 1000 / row.images_per_second if row.images_per_second else None


def extrapolated(workloads: Sequence[Workload], bench: Bench) -> list[bool]:
    """Whether each has a head and a large size, when no head was measured here at such a size."""
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


def to_measure(points: Priors, num: int, measured: Priors | None = None, spread: Spread = SHIPPED) -> list[int]:
    """Indices of the `num` most informative segmenters to measure, in order, given those `measured` already.

    Greedy by expected variance reduction; cubic in their number; ties go to the earlier one.
    """
    total = gram_of(points, spread)
    if measured is not None and len(measured):
        cross = covariance(points, measured, spread)
        total = total - cross @ np.linalg.solve(gram_of(measured, spread), cross.T)
    chosen: list[int] = []
    for _ in range(min(num, len(points))):
        diagonal = np.maximum(np.diag(total), 1e-12)
        gains = (total**2).sum(axis=0) / diagonal
        gains[chosen] = -1.0
        best = int(np.argmax(gains))
        chosen.append(best)
        total = total - np.outer(total[:, best], total[:, best]) / diagonal[best]
    return chosen
