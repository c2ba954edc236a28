"""Where the front bends, and what a doubling of cost buys along it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from luma_cli.advise.drawn_front import on_drawn_front


@dataclass(frozen=True, slots=True)
class Knee:
    """The candidate at which most draws have their knee. share: of the draws, those without a knee included."""

    index: int
    share: float


def knees(costs: ArrayLike, draws: ArrayLike, least_miou: float = 0.0) -> list[int]:
    """The knee's candidate in each draw [S], -1 where a front of fewer than three points or a flat one has none.

    The point of the front farthest above the chord between its ends, both axes (log cost, mIoU) scaled to 0..1. Of
    equally far ones the cheapest. costs: [C], greater than zero. draws: [S, C] of mIoU. least_miou: where the front
    begins: the smallest networks, worth nothing, would else set the chord.

    >>> knees([1, 2, 4, 8], [[30.0, 48.0, 49.0, 50.0]])
    [1]
    """
    cost, miou = np.asarray(costs, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if (cost <= 0).any():
        raise ValueError(f"costs down to {cost.min()}, expected all greater than zero")
    order = np.argsort(cost, kind="stable")
    x, y = np.log2(cost[order]), np.where(miou[:, order] < least_miou, np.nan, miou[:, order])
    front = on_drawn_front(cost[order], y)
    first = front.argmax(axis=1)
    last = len(x) - 1 - front[:, ::-1].argmax(axis=1)
    every = np.arange(len(y))
    across = x[last] - x[first]
    up = y[every, last] - y[every, first]
    bends = (across > 0) & (up > 0)
    across, up = np.where(bends, across, 1.0)[:, np.newaxis], np.where(bends, up, 1.0)[:, np.newaxis]
    above = (y - y[every, first][:, np.newaxis]) / up - (x - x[first][:, np.newaxis]) / across
    above = np.where(front, above, -np.inf)
    best = above.argmax(axis=1)
    found = bends & (above[every, best] > 1e-12)
    return [int(order[at]) if is_knee else -1 for at, is_knee in zip(best, found, strict=True)]


def knee(costs: ArrayLike, draws: ArrayLike, least_miou: float = 0.0) -> Knee | None:
    """The candidate with most votes and its share of all draws; of equals the first. None when no draw has a knee."""
    every = knees(costs, draws, least_miou)
    votes = Counter(index for index in every if index >= 0)
    if not votes:
        return None
    index = min(votes, key=lambda each: (-votes[each], each))
    return Knee(index, votes[index] / len(every))


def marginal_prices(costs: Sequence[float], mious: Sequence[float]) -> list[float | None]:
    """Points of mIoU that the next doubling of cost buys from each point of a front, cheapest first; None at the last.

    That is the best at no more than twice the cost, less the point's own: the slope between neighbours of nearly equal
    cost would be any number.

    >>> marginal_prices([10, 15, 40, 80], [40.0, 42.0, 46.0, 47.0])
    [2.0, 0.0, 1.0, None]
    """
    best = [max((y for x, y in zip(costs, mious, strict=True) if x <= 2 * cost), default=0.0) for cost in costs]
    gains: list[float | None] = [top - miou for top, miou in zip(best, mious, strict=True)]
    return [*gains[:-1], None] if gains else []
