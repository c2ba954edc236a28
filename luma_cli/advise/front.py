"""Which points nothing else beats: at most as expensive in every cost, at least as good, better in one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def on_front(costs: Sequence[Sequence[float]], scores: Sequence[float]) -> list[bool]:
    """For each point, whether no other dominates it. Costs are better small, scores better large.

    Equal points are all kept: they are ties. A point with a NaN is never on the front and dominates nothing.

    >>> on_front([(1,), (2,), (3,)], [50.0, 49.0, 51.0])
    [True, False, True]
    """
    order = sorted(
        (index for index in range(len(scores)) if not _unknown(costs[index], scores[index])),
        key=lambda index: (-scores[index], tuple(costs[index])),
    )
    # Whatever dominates a point comes before it in this order, or is itself dominated by something kept.
    kept: list[int] = []
    for index in order:
        if not any(_dominates(costs[other], scores[other], costs[index], scores[index]) for other in kept):
            kept.append(index)
    mask = [False] * len(scores)
    for index in kept:
        mask[index] = True
    return mask


def _unknown(costs: Sequence[float], score: float) -> bool:
    return math.isnan(score) or any(math.isnan(cost) for cost in costs)


def _dominates(costs: Sequence[float], score: float, other_costs: Sequence[float], other_score: float) -> bool:
    pairs = list(zip(costs, other_costs, strict=True))
    no_worse = score >= other_score and all(mine <= theirs for mine, theirs in pairs)
    return no_worse and (score > other_score or any(mine < theirs for mine, theirs in pairs))
