"""The run that most narrows the scaling exponents: a corner of one series' grid of sizes and resolutions.

In logs of parameters and tokens the law is nearly a plane, whose slopes are known best when runs stand at its corners.
The worth of a run is its leverage, x' (X'X + I)^-1 x, over the runs of the series that are there already.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from luma_cli.advise.candidates import Candidate

Run = tuple[str, int]
# A law needs that many sizes and resolutions (`luma scaling` refuses with fewer).
LEAST = 3
# Corners this near to the best in leverage are as good: the cheapest of them is taken.
AS_GOOD = 0.9


def series_of(candidates: Sequence[Candidate], trained: Collection[Run], mious: Mapping[Run, float]) -> list[Candidate]:
    """The grid to work on: card and pretraining with most runs already, of equals the one with the highest mIoU.

    trained: timm name and resolution of comparable runs. mious: expected. Empty when no series has three sizes at three
    resolutions.
    """
    series: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for each in candidates:
        if each.card and each.backbone_params:
            series[each.card, each.pretraining].append(each)
    grids = {key: each for key, each in series.items() if _is_grid(each)}
    if not grids:
        return []

    def worth(key: tuple[str, str]) -> tuple[int, float]:
        runs = [(each.timm_name, each.resolution) for each in grids[key]]
        return sum(run in trained for run in runs), max(mious.get(run, -math.inf) for run in runs)

    return grids[max(sorted(grids), key=worth)]


def most_narrowing(grid: Sequence[Candidate], trained: Collection[Run], costs: Mapping[Run, float]) -> Candidate | None:
    """The cheapest of the runs with most leverage that is not there yet and has a cost; None without one."""
    runs = {(each.timm_name, each.resolution): each for each in grid}
    free = [run for run in sorted(runs) if run not in trained and run in costs]
    if not free:
        return None
    x = {run: _coordinates(each) for run, each in runs.items()}
    low, high = np.min(list(x.values()), axis=0), np.max(list(x.values()), axis=0)
    scaled = {run: np.append((2 * each - low - high) / np.maximum(high - low, 1e-9), 1.0) for run, each in x.items()}
    known = np.array([scaled[run] for run in runs if run in trained]).reshape(-1, 3)
    inverse = np.linalg.inv(known.T @ known + np.eye(3))
    leverage = {run: float(scaled[run] @ inverse @ scaled[run]) for run in free}
    enough = AS_GOOD * max(leverage.values())
    return runs[min((run for run in free if leverage[run] >= enough), key=lambda run: (costs[run], run))]


def _is_grid(candidates: Sequence[Candidate]) -> bool:
    sizes = {each.backbone_params for each in candidates}
    return len(sizes) >= LEAST and len({each.resolution for each in candidates}) >= LEAST


def _coordinates(candidate: Candidate) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([math.log(candidate.backbone_params or 1), 2 * math.log(candidate.resolution)])
