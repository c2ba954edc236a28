"""What insisting on one class of models costs along a front of throughput and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.findings.finding import Interval
from luma_cli.findings.resample import percentiles

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
    share_percent: float


def held(rates: Floats, accuracy: Floats, is_class: Flags) -> Held:
    """What the class holds, from joint draws of the accuracy [draws, models], with the 90% interval of the loss.

    rates: images per second. Needs two models of the class with different rates. The best at a speed is the best in
    mean accuracy, as an adviser would have to choose; the best of each draw would be whichever is least certain.
    """
    import numpy as np

    order = np.argsort(-rates, kind="stable")
    logs, drawn, of_class = np.log(rates[order]), accuracy[:, order], is_class[order]
    fastest, slowest = np.flatnonzero(of_class)[[0, -1]]
    best = _best_so_far(drawn.mean(0))[fastest:slowest]
    best_of_class = _best_so_far(np.where(of_class, drawn.mean(0), -np.inf))[fastest:slowest]
    # Between the speeds of a model and the next slower one, the best of those as fast stays the same: a step function.
    steps = -np.diff(logs[fastest : slowest + 1])
    weights = steps / steps.sum()
    loss = (drawn[:, best] - drawn[:, best_of_class]) @ weights
    share = 100 * float(weights @ (best == best_of_class))
    return Held(percentiles(float(loss.mean()), loss), share)


def _best_so_far(scores: Floats) -> NDArray[np.int64]:
    """Index of the largest of the first j scores, for every j; the first of equals."""
    import numpy as np

    is_record = np.r_[True, scores[1:] > np.maximum.accumulate(scores)[:-1]]
    return np.maximum.accumulate(np.where(is_record, np.arange(len(scores)), 0))
