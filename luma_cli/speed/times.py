"""Time per image on a device: evidence from its measured rows, a prediction for every other segmenter.

Latency (batch 1) and throughput (at the plateau batch) are two quantities: each is learned from its own rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from luma_cli.speed import latency
from luma_cli.speed.bench import NOISY_SD, Bench
from luma_cli.speed.lineup import LATENCY, Lineup
from luma_cli.speed.measured import Measured
from luma_cli.speed.quantity import Workload
from luma_cli.speed.transfer import LogNormal, Points, Spread, posterior

if TYPE_CHECKING:
    from luma_cli.speed.features import Floats

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
        said = latency.predict(targets, seen.points, seen.log_ms, spread, lineup.reference.middle)
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
