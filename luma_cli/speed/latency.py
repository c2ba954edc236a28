"""Time of one image at batch 1, from times at large batches: launches and idle units add what no throughput shows.

    latency = scale x (reference + overhead)

The overhead is the device's, unknown: each value of a grid gives a Gaussian model (`transfer`), and what was measured
weighs them. With one measurement all stay likely and the interval says so; with several sizes one of them wins.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from luma_cli.speed.transfer import LogNormal, Points, Spread, log_evidence, posterior

if TYPE_CHECKING:
    from luma_cli.speed.features import Floats

# Overheads in units of the time of a classifier in the middle of the shipped table, one image at large batches: on the
# fastest shipped GPU 0.35 ms, so that the largest stands for 22 ms there.
# Overheads less likely than this share of the likeliest one are not followed.
_NEGLIGIBLE = 0.003
# Log deviation of one network's overhead from the device's: networks differ in their number of kernels.
_NETWORK_SD = 0.4
_OVERHEADS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def predict(targets: Points, measured: Points, log_ms: Floats, spread: Spread, middle: float) -> LogNormal:
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
