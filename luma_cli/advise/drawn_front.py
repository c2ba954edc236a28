"""The front of every posterior draw at once: who is on it, and what mIoU it reaches at each cost.

Legend: S draws, C candidates, K costs. Costs are better small; mIoU, in percent, is better large.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def on_drawn_front(costs: ArrayLike, draws: ArrayLike) -> Mask:
    """For each draw and candidate [S, C], whether no other candidate dominates it in that draw.

    costs: [C], or [C, K] for several. draws: [S, C] of mIoU. The definition is `front.on_front`'s: equal points are all
    kept, and a candidate with a NaN is never on the front and dominates nothing. Raises ValueError for other shapes.

    >>> on_drawn_front([1, 2, 3], [[50.0, 49.0, 51.0]]).tolist()
    [[True, False, True]]
    """
    cost, miou = _shaped(costs, draws)
    score = np.where(np.isnan(miou) | np.isnan(cost).any(axis=1), -np.inf, miou)
    prices, group = np.unique(cost, axis=0, return_inverse=True)  # lexicographic: whatever dominates comes earlier
    group = group.reshape(-1)
    best = _best_of_groups(score, group)  # [G, S]
    beaten = _beaten(prices, best)
    wins: Mask = (best[group] == score.T) & ~beaten[group] & np.isfinite(score.T)
    return wins.T


def on_drawn_front_at(costs: ArrayLike, draws: ArrayLike) -> Mask:
    """The same [S, C] where the one cost is uncertain too: costs [S, C], a draw of the cost for each of mIoU."""
    cost, miou = np.asarray(costs, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if cost.shape != miou.shape or miou.ndim != 2:
        raise ValueError(f"costs have shape {cost.shape}, expected that of the draws, {miou.shape}")
    score = np.where(np.isnan(miou) | np.isnan(cost), -np.inf, miou)
    order = np.argsort(cost, axis=1)
    wins = _sorted_front(np.take_along_axis(cost, order, axis=1), np.take_along_axis(score, order, axis=1))
    mask = np.zeros(score.shape, dtype=np.bool_)
    np.put_along_axis(mask, order, wins, axis=1)
    return mask


def reached(costs: ArrayLike, draws: ArrayLike) -> tuple[Floats, Floats]:
    """The distinct costs [P], ascending, and the best mIoU of each draw at no more than each of them [S, P].

    costs: [C]. A candidate with a NaN reaches nothing: -inf.
    """
    cost, miou = _shaped(costs, draws)
    if cost.shape[1] != 1:
        raise ValueError(f"costs have shape {cost.shape}, expected one cost each")
    known = ~np.isnan(cost[:, 0])
    prices, group = np.unique(cost[known, 0], return_inverse=True)
    best = _best_of_groups(np.where(np.isnan(miou), -np.inf, miou)[:, known], group.reshape(-1))
    return prices, np.maximum.accumulate(best, axis=0).T


def _shaped(costs: ArrayLike, draws: ArrayLike) -> tuple[Floats, Floats]:
    cost, miou = np.asarray(costs, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    cost = cost[:, np.newaxis] if cost.ndim == 1 else cost
    if miou.ndim != 2 or cost.ndim != 2 or cost.shape[0] != miou.shape[1]:
        raise ValueError(f"costs have shape {np.shape(costs)}, draws {miou.shape}; expected [C] or [C, K] and [S, C]")
    return cost, miou


def _best_of_groups(score: Floats, group: NDArray[np.intp]) -> Floats:
    """The best score of each group of equal cost in each draw [G, S]."""
    if not len(group):
        return np.zeros((0, len(score)))
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.asarray(np.maximum.reduceat(score.T[order], starts, axis=0))


def _beaten(prices: Floats, best: Floats) -> Mask:
    if prices.shape[1] == 1:
        return _one_cost(best)
    return _two_costs(prices, best) if prices.shape[1] == 2 else _many_costs(prices, best)


def _one_cost(best: Floats) -> Mask:
    """Groups in ascending cost: beaten where a cheaper one is at least as good."""
    beaten = np.zeros(best.shape, dtype=np.bool_)
    beaten[1:] = best[1:] <= np.maximum.accumulate(best, axis=0)[:-1]
    return beaten


def _sorted_front(cost: Floats, score: Floats) -> Mask:
    """The front of each row [S, C] whose costs ascend: better than all that is cheaper, and the best at its cost."""
    at = np.arange(cost.shape[1])
    running = np.maximum.accumulate(score, axis=1)
    starts = np.ones(cost.shape, dtype=np.bool_)  # of a group of equal costs
    starts[:, 1:] = cost[:, 1:] != cost[:, :-1]
    ends = np.ones_like(starts)
    ends[:, :-1] = starts[:, 1:]
    first = np.maximum.accumulate(np.where(starts, at, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, at, len(at))[:, ::-1], axis=1)[:, ::-1]
    cheaper = np.where(first > 0, np.take_along_axis(running, np.maximum(first - 1, 0), axis=1), -np.inf)
    wins: Mask = (score > cheaper) & (score == np.take_along_axis(running, last, axis=1))
    return wins


def _two_costs(prices: Floats, best: Floats) -> Mask:
    """Groups by their first cost, against the best so far at no more than their second: a Fenwick tree of maxima."""
    ranks = np.unique(prices[:, 1], return_inverse=True)[1].reshape(-1) + 1
    tree = np.full((len(prices) + 1, best.shape[1]), -np.inf)
    beaten = np.zeros(best.shape, dtype=np.bool_)
    for index, rank in enumerate(ranks.tolist()):
        node = rank
        while node:
            beaten[index] |= tree[node] >= best[index]
            node &= node - 1
        node = rank
        while node < len(tree):
            np.maximum(tree[node], best[index], out=tree[node])
            node += node & -node
    return beaten


def _many_costs(prices: Floats, best: Floats) -> Mask:
    """Groups of each draw, ordered so that what dominates comes first, and the strongest of it early.

    The next one that is still there is on the front, and removes what it dominates.
    """
    ranks = np.stack([np.unique(axis, return_inverse=True)[1].reshape(-1) for axis in prices.T])
    beaten = np.ones(best.shape, dtype=np.bool_)
    for draw, score in enumerate(best.T):
        losses = np.concatenate((ranks, np.empty((1, len(score)), dtype=ranks.dtype)))
        # Prices ascend, so of equally good groups the dominating one comes first.
        losses[-1, np.argsort(-score, kind="stable")] = np.arange(len(score))
        left = np.argsort(losses.sum(axis=0), kind="stable")
        losses = losses[:, left]
        while len(left):
            beaten[left[0], draw] = False
            survives = np.logical_or.reduce(losses < losses[:, :1])
            left, losses = left[survives], losses[:, survives]
    return beaten
