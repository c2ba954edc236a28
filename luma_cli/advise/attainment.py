"""What the front reaches at each cost with 90, 50 and 10 % probability: its uncertainty as a band.

The k % attainment surface of Grunert da Fonseca and Fonseca (EMO 2001, https://doi.org/10.1007/3-540-44719-9_15), which
in two dimensions is an order statistic of the running maximum at each cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from luma_cli.advise.drawn_front import Floats, reached

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
