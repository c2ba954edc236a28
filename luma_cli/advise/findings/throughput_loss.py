"""What insisting on one class of models costs along a front of throughput and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.advise.findings.finding import Interval
from luma_cli.advise.findings.resample import percentiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Held:
    """loss_points: mIoU lost by taking the best of the class rather than of all, mean over the speeds asked for.

    share_percent: of those speeds at which the best of all is of the class. Speeds asked for are spread evenly in their
    logarithm between the slowest and the fastest of the class.
    """

    loss_points: Interval
    share_percent: Interval


def held(rates: Floats, accuracy: Floats, is_class: Flags) -> Held:
    """What the class holds, over draws of the accuracy [draws, models]; medians with central 90 % intervals.

    rates: images per second. Needs two models of the class with different rates.
    """
    import numpy as np

    order = np.argsort(-rates, kind="stable")
    logs, of_class = np.log(rates[order]), is_class[order]
    best = np.maximum.accumulate(accuracy[:, order], axis=1)
    best_of_class = np.maximum.accumulate(np.where(of_class, accuracy[:, order], -np.inf), axis=1)
    fastest, slowest = np.flatnonzero(of_class)[[0, -1]]
    # Between the speeds of model j and the next slower one, the best is the best of the first j: a step function.
    steps = logs[fastest:slowest] - logs[fastest + 1 : slowest + 1]
    weights = steps / steps.sum()
    gap = best[:, fastest:slowest] - best_of_class[:, fastest:slowest]
    return Held(_median(gap @ weights), _median(100 * ((gap <= 0) @ weights)))


def _median(drawn: Floats) -> Interval:
    import numpy as np

    return percentiles(float(np.median(drawn)), drawn)
