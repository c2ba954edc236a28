"""How much the front covers: the area under it in doublings of cost and points of mIoU, up to a fixed reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from luma_cli.advise.drawn_front import Floats, reached
from luma_cli.units import BudgetKind

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
