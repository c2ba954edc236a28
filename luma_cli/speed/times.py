"""Time per image on a device: evidence from its measured rows, a prediction for every other segmenter.

Latency (batch 1) and throughput (at the plateau batch) are two quantities: each is learned from its own rows. Latency
follows from times at large batches, to which launches and idle units add what no throughput shows:

    latency = scale x (reference + overhead)

The overhead is the device's, unknown: each value of a grid gives a Gaussian model (`transfer`), and what was measured
weighs them. With one measurement all stay likely and the interval says so; with several sizes one of them wins.
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
    Points,
    Spread,
    covariance,
    gram_of,
    log_evidence,
    posterior,
)
from luma_cli.store.profiles import Measured

TimeKind = Literal["latency", "throughput"]
# Sides from which segmenters with a head are extrapolated until one was measured there, and the deviation that adds:
# small to large, the audit finds 3 to 7 % for known networks, and nothing ships that tells of heads.
LARGE_SIDE, _LARGE_SD = 512, 0.15
_OTHER_CLASSES_SD, _OLDER_SD = 0.03, 0.05
# Rows beyond this many no longer narrow anything, and solving is cubic in them.
_MOST_ROWS = 150
# In units of the time of a classifier in the middle of the shipped table, one image at large batches: on the fastest
# shipped GPU 0.35 ms, so that the largest stands for 22 ms there.
_OVERHEADS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# Overheads less likely than this share of the likeliest one are not followed.
_NEGLIGIBLE = 0.003
# Log deviation of one network's overhead from the device's: networks differ in their number of kernels.
_NETWORK_SD = 0.4


@dataclass(frozen=True, slots=True)
class Evidence:
    """Measured times of one kind on one bench. num_here: rows that differ from the target in the model alone."""

    points: Points
    log_ms: Floats
    num_here: int
    num_related: int


def evidence(kind: TimeKind, bench: Bench, lineup: Lineup) -> Evidence:
    """The bench's rows that measured this kind; the user's own modules are left out, as their names mean nothing."""
    here = _evenly([row for row in bench.rows if milliseconds(kind, row) and not row.own_module])
    others = [row for row in bench.related if milliseconds(kind, row) and not row.own_module]
    related = _evenly(others, _MOST_ROWS - len(here))
    rows = [*here, *related]
    environments = [row.conditions.environment if bench.is_older(row) else "" for row in rows]
    points = lineup.reference.points([segmenter_of(row) for row in rows], environments=environments)
    variance = np.array([_own_variance(kind, row, bench) for row in rows])
    log_ms = np.log(np.array([milliseconds(kind, row) for row in rows], dtype=float))
    return Evidence(replace(points, variance=points.variance + variance), log_ms, len(here), len(related))


def predict(kind: TimeKind, targets: Points, seen: Evidence, lineup: Lineup, far: Sequence[bool]) -> LogNormal:
    """Log milliseconds per image of the targets. far: which are `extrapolated`."""
    spread = spread_of(kind, lineup)
    if kind == "latency":
        said = predict_latency(targets, seen.points, seen.log_ms, spread, lineup.reference.middle)
    else:
        said = posterior(targets, seen.points, seen.log_ms, spread)
    return LogNormal(said.mean, said.variance + _LARGE_SD**2 * np.array(far, dtype=float))


def predict_latency(targets: Points, measured: Points, log_ms: Floats, spread: Spread, middle: float) -> LogNormal:
    """Log latency of the targets: mean and variance of the mixture over overheads. middle: log ms of the unit."""
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
    base = np.logaddexp(points.base, overhead)
    share = np.exp(points.base - base)
    variance = points.variance * share**2 + (_NETWORK_SD * (1 - share)) ** 2
    return replace(points, base=base, variance=variance, contrasts=points.contrasts * share[:, None])


def spread_of(kind: TimeKind, lineup: Lineup) -> Spread:
    """The spreads of the kind: latency against times at large batches has wider ones, not narrower than the law's."""
    if kind == "throughput":
        return lineup.spread
    mine = asdict(lineup.spread)
    wider = {name: max(sd, mine[name]) for name, sd in asdict(LATENCY).items()}
    return Spread(**{**wider, "scale": LATENCY.scale})


def milliseconds(kind: TimeKind, row: Measured) -> float | None:
    """Milliseconds per image that the row measured, None where it did not."""
    if kind == "latency":
        return row.latency_ms or None
    return 1000 / row.images_per_second if row.images_per_second else None


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


def to_measure(points: Points, num: int, measured: Points | None = None, spread: Spread = SHIPPED) -> list[int]:
    """Indices of the `num` segmenters whose times tell most about those of all, in order, each given those before it.

    The choice is greedy by expected variance reduction, cubic in their number; ties go to the earlier one. measured:
    what was measured already.
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
