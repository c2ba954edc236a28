"""How likely each candidate is on the front, and how likely it is the best that the budget allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from luma_cli.advise.drawn_front import Floats, on_drawn_front, on_drawn_front_at

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
