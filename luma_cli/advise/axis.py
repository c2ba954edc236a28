"""The cost axis of a front: one kind in one unit, better small, drawn with the mIoU where it is not certain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from luma_cli.advise.budgets import Priced
from luma_cli.advise.drawn_front import Floats
from luma_cli.errors import UsageError
from luma_cli.speed.quantity import Z80
from luma_cli.units import FLOORS, BudgetKind

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
