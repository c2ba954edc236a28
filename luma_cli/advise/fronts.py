"""Fronts of mIoU over one cost: who is on the front, what it reaches, how large it is, and where it bends.

A front is found in every posterior draw at once. Attainment is that of Grunert da Fonseca and Fonseca (EMO 2001,
https://doi.org/10.1007/3-540-44719-9_15); over one cost it is an order statistic of the running maximum.

Legend: S draws, C candidates, P distinct costs. Costs are better small; mIoU, in percent, is better large.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luma_cli.advise.question import Priced
from luma_cli.errors import UsageError
from luma_cli.speed.quantity import Z80
from luma_cli.units import FLOORS, BudgetKind

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Draws for chances, bands and volumes in every command: the standard error of a chance is then at most 0.016.
NUM_DRAWS = 1000
LEVELS = (0.9, 0.5, 0.1)
# About the spread between seeds of one recipe on ADE20K and Cityscapes: smaller differences decide nothing.
TIE_MIOU = 0.3
# The least mIoU that counts: SegFormer-B0 at a single scale, the smallest segmenter in wide use (arXiv 2105.15203,
# Table 1). A front counts where a model is worth having.
REFERENCE_MIOU: Mapping[str, float] = {"ade20k": 37.4, "cityscapes": 76.2}
# The largest cost that counts. It is fixed, so that figures of two answers compare: ten times the largest published
# segmenters (about 1 T multiply-adds), a second an image, one GPU's memory.
REFERENCE_COST: Mapping[BudgetKind, float] = {
    "macs": 1e13,
    "params": 1e10,
    "ms": 1000.0,
    "fps": 1.0,
    "images_per_second": 1.0,
    "bytes": 2.0**37,
    "joules": 100.0,
}
# Cost axes as users name them.
AXES: Mapping[str, BudgetKind] = {
    "gflops": "macs",
    "latency": "ms",
    "memory": "bytes",
    "params": "params",
    "energy": "joules",
    "throughput": "images_per_second",
}


def axis_kind(name: str) -> BudgetKind:
    """The kind of cost of a name in `AXES`. Raises UsageError for another name."""
    if name not in AXES:
        raise UsageError(f"--x {name!r} is not known, expected one of {', '.join(AXES)}")
    return AXES[name]


def place(priced: Priced, kind: BudgetKind) -> float:
    """The candidate's cost on the axis, better small: a rate as its reciprocal; NaN where it is not known."""
    value = priced.cost(kind)
    if value is None or value <= 0:
        return math.nan
    return 1 / value if kind in FLOORS else float(value)


def is_certain(pool: Sequence[Priced], kind: BudgetKind) -> bool:
    """Whether no cost has an interval."""
    return all(each.costs[kind].low == each.costs[kind].high for each in pool)


def draw_places(pool: Sequence[Priced], kind: BudgetKind, num_draws: int, seed: int = 0) -> Floats:
    """Draws [S, C] of the places on the axis, log-normal with each cost's 80 % interval."""
    # One draw for each architecture and size: the speed does not depend on the weights.
    keys = [(each.candidate.architecture, each.candidate.resolution) for each in pool]
    first = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    surprise = np.random.default_rng(seed).standard_normal((num_draws, len(first)))[:, [first[key] for key in keys]]
    middle = np.log(np.array([place(each, kind) for each in pool]))
    ends = [(each.costs[kind].low, each.costs[kind].high) for each in pool]
    spread = np.array([math.log(high / low) / (2 * Z80) if 0 < low < high else 0.0 for low, high in ends])
    return np.asarray(np.exp(middle + spread * surprise), dtype=np.float64)


def on_front(costs: ArrayLike, draws: ArrayLike) -> Mask:
    """Whether no other candidate dominates it, for each draw and candidate [S, C].

    costs: [C], or [S, C] where they are drawn too. draws: [S, C] of mIoU, or [C], and then the mask is [C]. Equal
    points are all kept; a NaN is never on the front. Raises ValueError for other shapes.

    >>> on_front([1, 2, 3], [50.0, 49.0, 51.0]).tolist()
    [True, False, True]
    """
    cost, miou = np.asarray(costs, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if cost.shape not in (miou.shape, miou.shape[-1:]) or miou.ndim not in (1, 2):
        raise ValueError(f"costs have shape {cost.shape}, draws {miou.shape}; expected [C] or [S, C], and [S, C]")
    cost, score = np.atleast_2d(cost), np.atleast_2d(miou)
    score = np.where(np.isnan(score) | np.isnan(cost), -np.inf, score)
    order = np.argsort(cost, axis=1)
    wins = _ascending_front(_columns(cost, order), _columns(score, order))
    mask = np.empty_like(wins)
    np.put_along_axis(mask, np.broadcast_to(order, wins.shape), wins, axis=1)
    return mask.reshape(miou.shape)


def _columns(values: NDArray[Any], order: NDArray[np.intp]) -> NDArray[Any]:
    """The columns of `values` in this order: [1, C] for all rows, or [S, C]."""
    # One order for all rows by plain indexing: `take_along_axis` takes four times as long.
    return values[:, order[0]] if len(order) == 1 else np.take_along_axis(values, order, axis=1)


def _ascending_front(cost: Floats, score: Floats) -> Mask:
    """The front for ascending costs [1 or S, C]: better than all cheaper ones, and the best at its own cost."""
    at = np.arange(cost.shape[1])
    running = np.maximum.accumulate(score, axis=1)
    starts = np.ones(cost.shape, dtype=np.bool_)  # of a group of equal costs
    starts[:, 1:] = cost[:, 1:] != cost[:, :-1]
    ends = np.ones_like(starts)
    ends[:, :-1] = starts[:, 1:]
    first = np.maximum.accumulate(np.where(starts, at, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, at, len(at))[:, ::-1], axis=1)[:, ::-1]
    cheaper = np.where(first > 0, _columns(running, np.maximum(first - 1, 0)), -np.inf)
    wins: Mask = (score > cheaper) & (score == _columns(running, last))
    return wins


def on_front_chances(pool: Sequence[Priced], kind: BudgetKind, draws: Floats) -> list[float]:
    """The share of the draws [S, C] of mIoU in which each is on the front; uncertain costs are drawn too."""
    certain = is_certain(pool, kind)
    costs = [place(each, kind) for each in pool] if certain else draw_places(pool, kind, len(draws))
    return [float(each) for each in on_front(costs, draws).mean(axis=0)]


def best_chance(draws: ArrayLike) -> Floats:
    """The share of the draws [S, C] in which each candidate is best; equally good ones divide a draw.

    >>> best_chance([[50.0, 51.0], [50.0, 50.0]]).tolist()
    [0.25, 0.75]
    """
    miou = np.asarray(draws, dtype=np.float64)
    if not miou.size:
        return np.zeros(miou.shape[1])
    leads = miou == miou.max(axis=1, keepdims=True)
    return np.asarray((leads / leads.sum(axis=1, keepdims=True)).mean(axis=0), dtype=np.float64)


def reached(costs: ArrayLike, draws: ArrayLike) -> tuple[Floats, Floats]:
    """The distinct costs [P] of costs [C], ascending, and the best mIoU of each draw up to each cost [S, P].

    Where only NaN is that cheap, the best is -inf.
    """
    cost, miou = np.asarray(costs, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if cost.ndim != 1 or miou.shape[1:] != cost.shape:
        raise ValueError(f"costs have shape {cost.shape}, draws {miou.shape}; expected one cost each, [C], and [S, C]")
    order = np.argsort(cost, kind="stable")[: np.count_nonzero(~np.isnan(cost))]
    ends = np.flatnonzero(np.diff(cost[order], append=np.inf))  # the last of each group of equal costs
    running = np.maximum.accumulate(np.where(np.isnan(miou), -np.inf, miou)[:, order], axis=1)
    return cost[order][ends], running[:, ends]


@dataclass(frozen=True, slots=True)
class Attainment:
    """costs: [P], ascending. miou: [levels, P], reached up to that cost with at least that probability."""

    costs: Floats
    levels: tuple[float, ...]
    miou: Floats

    def at(self, cost: float) -> tuple[float, ...]:
        """The mIoU of each level up to `cost`; -inf where nothing is that cheap."""
        index = int(np.searchsorted(self.costs, cost, side="right")) - 1
        return tuple(self.miou[:, index].tolist()) if index >= 0 else (-math.inf,) * len(self.levels)


def attainment(costs: ArrayLike, draws: ArrayLike, levels: Sequence[float] = LEVELS) -> Attainment:
    """The attainment of the front over one cost [C] from joint draws [S, C] of mIoU.

    Raises ValueError without a draw and for levels outside (0, 1].

    >>> attainment([1, 2], [[50.0, 49.0], [50.0, 51.0]]).at(2)
    (50.0, 51.0, 51.0)
    """
    prices, best = reached(costs, draws)
    if not len(best) or not all(0 < level <= 1 for level in levels):
        raise ValueError(f"{len(best)} draws at levels {tuple(levels)}, expected one or more, and levels in (0, 1]")
    descending = -np.sort(-best, axis=0)
    # The value that at least `level` of the draws equal or exceed.
    picks = [math.ceil(level * len(best) - 1e-9) - 1 for level in levels]
    return Attainment(prices, tuple(levels), descending[picks])


def hypervolumes(costs: ArrayLike, draws: ArrayLike, reference_cost: float, reference_miou: float) -> Floats:
    """The area of each draw [S] that the candidates dominate, in mIoU points times doublings of cost.

    costs: [C], greater than zero. Candidates beyond the reference point add nothing.

    >>> hypervolumes([1.0, 2.0], [[40.0, 50.0]], reference_cost=8.0, reference_miou=30.0).tolist()
    [50.0]
    """
    prices, best = reached(costs, draws)
    if (prices <= 0).any() or reference_cost <= 0:
        raise ValueError(f"costs down to {prices.min(initial=reference_cost)}, expected all greater than zero")
    edges = np.log2(np.minimum(np.append(prices, reference_cost), reference_cost))
    height = np.maximum(best - reference_miou, 0.0)
    return np.asarray(height @ np.diff(edges), dtype=np.float64)


def knees(costs: ArrayLike, draws: ArrayLike, least_miou: float = 0.0) -> list[int]:
    """The knee's candidate in each draw of mIoU [S, C]; -1 where the front is flat or has fewer than three points.

    The point farthest above the chord between the front's ends, in log cost and mIoU scaled to 0..1; the cheapest of
    equals. costs: [C], greater than zero. least_miou: where the front begins, so that tiny networks set no chord.

    >>> knees([1, 2, 4, 8], [[30.0, 48.0, 49.0, 50.0]])
    [1]
    """
    cost, miou = np.asarray(costs, dtype=np.float64), np.asarray(draws, dtype=np.float64)
    if (cost <= 0).any():
        raise ValueError(f"costs down to {cost.min()}, expected all greater than zero")
    order = np.argsort(cost, kind="stable")
    x, y = np.log2(cost[order]), np.where(miou[:, order] < least_miou, np.nan, miou[:, order])
    front = on_front(cost[order], y)
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


def knee(costs: ArrayLike, draws: ArrayLike, least_miou: float = 0.0) -> tuple[int, float] | None:
    """The index that is the knee in most draws, the first of equals, and its share of all draws; None without any."""
    every = knees(costs, draws, least_miou)
    votes = Counter(index for index in every if index >= 0)
    if not votes:
        return None
    index = min(votes, key=lambda each: (-votes[each], each))
    return index, votes[index] / len(every)


def marginal_prices(costs: Sequence[float], mious: Sequence[float]) -> list[float | None]:
    """The gain in mIoU up to twice the cost, from each point of a front, cheapest first; None at the last.

    (The slope between neighbours of nearly equal cost would be arbitrary.)

    >>> marginal_prices([10, 15, 40, 80], [40.0, 42.0, 46.0, 47.0])
    [2.0, 0.0, 1.0, None]
    """
    best = [max((y for x, y in zip(costs, mious, strict=True) if x <= 2 * cost), default=0.0) for cost in costs]
    gains: list[float | None] = [top - miou for top, miou in zip(best, mious, strict=True)]
    return [*gains[:-1], None] if gains else []
