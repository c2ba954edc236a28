"""Which points nothing else beats: at most as expensive in every cost, at least as good, better in one of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from luma_cli.advise.question import Priced
from luma_cli.errors import UsageError
from luma_cli.speed.quantity import Z80
from luma_cli.units import FLOORS, BudgetKind


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


# Joint draws that chances, bands and volumes are counted over, in every command the same: a chance is then within 0.016
# (one standard error) of what more draws would say.
NUM_DRAWS = 1000
# With three costs or more the front is found draw by draw, 3 ms for 2,000 candidates; 400 tell a chance within 5 %.
NUM_DRAWS_OF_MANY_COSTS = 400


@dataclass(frozen=True, slots=True)
class Chances:
    """Probabilities between 0 and 1, one per candidate [C].

    on_front: that nothing dominates it. best: that it has the highest mIoU of all that meet the budget; sums to 1 when
    anything meets it in every draw.
    """

    on_front: Floats
    best: Floats


def chances(costs: ArrayLike, draws: ArrayLike, within: ArrayLike | None = None) -> Chances:
    """Both chances of every candidate, counted over joint draws [S, C] of mIoU in percent.

    costs: [C] or [C, K], better small. within: which candidates meet the budget, [C], or [S, C] where what they cost is
    uncertain; all when None. Only they take part, on the front too.

    >>> chances([1, 2], [[50.0, 51.0], [50.0, 49.0]]).on_front.tolist()
    [1.0, 0.5]
    """
    miou = _allowed(draws, within)
    used = miou[:NUM_DRAWS_OF_MANY_COSTS] if np.ndim(costs) == 2 and np.shape(costs)[1] > 2 else miou
    return Chances(on_drawn_front(costs, used).mean(axis=0), best_chance(miou))


def chances_at(costs: ArrayLike, draws: ArrayLike, within: ArrayLike | None = None) -> Chances:
    """The same where the one cost is uncertain: costs [S, C], drawn with the mIoU."""
    miou = _allowed(draws, within)
    return Chances(on_drawn_front_at(costs, miou).mean(axis=0), best_chance(miou))


def best_chance(draws: ArrayLike, within: ArrayLike | None = None) -> Floats:
    """The part of the draws [S, C] in which each candidate is best; candidates that are equally good share a draw.

    >>> best_chance([[50.0, 51.0], [50.0, 50.0]]).tolist()
    [0.25, 0.75]
    """
    miou = _allowed(draws, within)
    if not miou.size:
        return np.zeros(miou.shape[1])
    best = np.where(np.isnan(miou), -np.inf, miou).max(axis=1, keepdims=True)
    leads = (miou == best) & (best > -np.inf)
    share = np.maximum(leads.sum(axis=1, keepdims=True), 1)
    return np.asarray((leads / share).mean(axis=0), dtype=np.float64)


def _allowed(draws: ArrayLike, within: ArrayLike | None) -> Floats:
    """The draws, NaN where the budget is not met."""
    miou = np.asarray(draws, dtype=np.float64)
    return miou if within is None else np.where(np.asarray(within, dtype=np.bool_), miou, np.nan)


LEVELS = (0.9, 0.5, 0.1)


@dataclass(frozen=True, slots=True)
class Attainment:
    """costs: [P], ascending. miou: [levels, P], reached at no more than that cost with at least that probability."""

    costs: Floats
    levels: tuple[float, ...]
    miou: Floats

    def at(self, cost: float) -> tuple[float, ...]:
        """The mIoU of each level at no more than `cost`; -inf where nothing is that cheap."""
        index = int(np.searchsorted(self.costs, cost, side="right")) - 1
        return tuple(self.miou[:, index].tolist()) if index >= 0 else (-math.inf,) * len(self.levels)


def attainment(costs: ArrayLike, draws: ArrayLike, levels: Sequence[float] = LEVELS) -> Attainment:
    """The attainment of the front over one cost [C] from joint draws [S, C] of mIoU.

    levels: probabilities in (0, 1]. Raises ValueError for others, and without a draw.

    >>> attainment([1, 2], [[50.0, 49.0], [50.0, 51.0]]).at(2)
    (50.0, 51.0, 51.0)
    """
    prices, best = reached(costs, draws)
    if not len(best) or not all(0 < level <= 1 for level in levels):
        raise ValueError(f"{len(best)} draws at levels {tuple(levels)}, expected one or more, and levels in (0, 1]")
    descending = -np.sort(-best, axis=0)
    # Reached in at least `level` of the draws: the value that this many of them equal or exceed.
    picks = [math.ceil(level * len(best) - 1e-9) - 1 for level in levels]
    return Attainment(prices, tuple(levels), descending[picks])


# The least mIoU that counts: of the smallest segmenter in wide use, SegFormer-B0 at a single scale (arXiv 2105.15203,
# Table 1). A front counts where a model is worth having.
REFERENCE_MIOU: Mapping[str, float] = {"ade20k": 37.4, "cityscapes": 76.2}
# The largest cost that counts. Fixed, so that figures of two answers can be compared: ten times the dearest segmenters
# that are published (about 1 T multiply-adds), a second an image, one GPU's memory.
REFERENCE_COST: Mapping[BudgetKind, float] = {
    "macs": 1e13,
    "params": 1e10,
    "ms": 1000.0,
    "fps": 1.0,
    "images_per_second": 1.0,
    "bytes": 2.0**37,
    "joules": 100.0,
}


@dataclass(frozen=True, slots=True)
class Hypervolume:
    """In mIoU points times doublings of cost: the mean over draws and its central 80 % interval."""

    mean: float
    low: float
    high: float


def hypervolumes(costs: ArrayLike, draws: ArrayLike, reference_cost: float, reference_miou: float) -> Floats:
    """The area of each draw [S] that some candidate dominates, in (log2 cost, mIoU), up to the reference point.

    costs: [C], greater than zero. Candidates beyond the reference in either axis add nothing.

    >>> hypervolumes([1.0, 2.0], [[40.0, 50.0]], reference_cost=8.0, reference_miou=30.0).tolist()
    [50.0]
    """
    prices, best = reached(costs, draws)
    if (prices <= 0).any() or reference_cost <= 0:
        raise ValueError(f"costs down to {prices.min(initial=reference_cost)}, expected all greater than zero")
    edges = np.log2(np.minimum(np.append(prices, reference_cost), reference_cost))
    height = np.maximum(best - reference_miou, 0.0)
    return np.asarray(height @ np.diff(edges), dtype=np.float64)


def hypervolume(costs: ArrayLike, draws: ArrayLike, reference_cost: float, reference_miou: float = 0.0) -> Hypervolume:
    """Mean and 80 % interval of `hypervolumes` over the draws."""
    areas = hypervolumes(costs, draws, reference_cost, reference_miou)
    low, high = np.quantile(areas, (0.1, 0.9))
    return Hypervolume(float(areas.mean()), float(low), float(high))


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


# As users name them.
AXES: Mapping[str, BudgetKind] = {
    "gflops": "macs",
    "latency": "ms",
    "memory": "bytes",
    "params": "params",
    "energy": "joules",
    "throughput": "images_per_second",
}


def axis_kind(name: str) -> BudgetKind:
    """The kind of cost behind a name. Raises UsageError for one that is no axis.

    >>> axis_kind("latency")
    'ms'
    """
    if name not in AXES:
        raise UsageError(f"--x {name!r} is no axis, expected one of {', '.join(AXES)}")
    return AXES[name]


def place(priced: Priced, kind: BudgetKind) -> float:
    """Where the candidate stands on the axis, better small: a rate as its reciprocal; NaN where it is not known."""
    value = priced.cost(kind)
    if value is None or value <= 0:
        return math.nan
    return 1 / value if kind in FLOORS else float(value)


def is_certain(pool: Sequence[Priced], kind: BudgetKind) -> bool:
    """Whether every cost is a count, without an interval."""
    return all(each.costs[kind].low == each.costs[kind].high for each in pool)


def draw_places(pool: Sequence[Priced], kind: BudgetKind, num_draws: int, seed: int = 0) -> Floats:
    """Draws [S, C] of the places on the axis, log-normal with each cost's 80 % interval.

    One draw for each architecture and size: weights of another pretraining run at the same speed.
    """
    segmenters: dict[tuple[str, int], int] = {}
    column = [
        segmenters.setdefault((each.candidate.architecture, each.candidate.resolution), len(segmenters))
        for each in pool
    ]
    surprise = np.random.default_rng(seed).standard_normal((num_draws, len(segmenters)))[:, column]
    middle = np.log(np.array([place(each, kind) for each in pool]))
    spread = np.array([_log_sd(each, kind) for each in pool])
    return np.asarray(np.exp(middle + spread * surprise), dtype=np.float64)


def _log_sd(priced: Priced, kind: BudgetKind) -> float:
    quantity = priced.costs[kind]
    return math.log(quantity.high / quantity.low) / (2 * Z80) if 0 < quantity.low < quantity.high else 0.0


# About the spread between seeds of one recipe on ADE20K and Cityscapes: differences below it decide nothing.
TIE_MIOU = 0.3
# A first candidate that is the best in this part of the draws wins alone.
CLEAR_CHANCE = 0.6


@dataclass(frozen=True, slots=True)
class Ties:
    """Indices of candidates. leader: the highest expected mIoU. winner: what is recommended.

    members: all that tie with the leader, itself included, cheapest first; the leader alone when it is clear.
    """

    leader: int
    winner: int
    members: tuple[int, ...]

    @property
    def is_tie(self) -> bool:
        """Whether more than one candidate could as well be the best."""
        return len(self.members) > 1


def ties(
    mious: Sequence[float],
    costs: Sequence[Sequence[float]],
    best: Sequence[float],
    within_miou: float = TIE_MIOU,
    clear: float = CLEAR_CHANCE,
) -> Ties:
    """Who ties for the first place, and who gets it.

    mious: expected, in percent. costs: of each, compared in their order, better small. best: P(best) of each. Equal
    candidates are taken in the order given. Raises ValueError when there is none.

    >>> ties([50.0, 50.2, 48.0], [(1,), (2,), (1,)], [0.4, 0.5, 0.1])
    Ties(leader=1, winner=0, members=(0, 1))
    """
    known = [index for index, miou in enumerate(mious) if not math.isnan(miou)]
    if not known:
        raise ValueError(f"{len(mious)} candidates, none with a known mIoU; expected at least one")
    leader = min(known, key=lambda index: (-mious[index], tuple(costs[index]), index))
    if best[leader] >= clear:
        return Ties(leader, leader, (leader,))
    # Rounded, so that 50.0 is within 0.3 of 50.3, which in floats it is not.
    near = [index for index in known if round(mious[leader] - mious[index], 9) <= within_miou]
    members = sorted(near, key=lambda index: (tuple(costs[index]), -mious[index], index))
    return Ties(leader, members[0], tuple(members))


def on_front_chances(pool: Sequence[Priced], kind: BudgetKind, places: Sequence[float], draws: Floats) -> list[float]:
    """P(on front) of each, the cost drawn too where it is not certain."""
    if is_certain(pool, kind):
        return [float(each) for each in chances(places, draws).on_front]
    return [float(each) for each in chances_at(draw_places(pool, kind, len(draws)), draws).on_front]
