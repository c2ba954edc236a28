"""The run that most narrows the scaling exponents: of one series' grid of sizes and resolutions, usually a corner.

How much a run tells is `scaling.series`'s answer, from the Fisher information of the law.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from luma_cli.advise.candidates import Candidate
from luma_cli.scaling.law import PLAIN, Point, tokens_of
from luma_cli.scaling.series import MOST_PARAMS, Model, most_telling

Run = tuple[str, int]
# A law needs that many sizes and resolutions (`luma scaling` refuses with fewer).
LEAST = 3


def series_of(candidates: Sequence[Candidate], trained: Collection[Run], mious: Mapping[Run, float]) -> list[Candidate]:
    """The grid to work on: card and pretraining with most runs already, of equals the one with the highest mIoU.

    trained: timm name and resolution of comparable runs. mious: expected. Sizes beyond MOST_PARAMS are left out, as in
    the designs of `luma scaling`. Empty when no series has three sizes at three resolutions.
    """
    series: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for each in candidates:
        if each.card and 0 < (each.backbone_params or 0) <= MOST_PARAMS:
            series[each.card, each.pretraining].append(each)
    grids = {key: each for key, each in series.items() if _is_grid(each)}
    if not grids:
        return []

    def worth(key: tuple[str, str]) -> tuple[int, float]:
        runs = [each.run_key for each in grids[key]]
        return sum(run in trained for run in runs), max(mious.get(run, -math.inf) for run in runs)

    return grids[max(sorted(grids), key=worth)]


def most_narrowing(
    grid: Sequence[Candidate], trained: Collection[Run], affordable: Collection[Run]
) -> Candidate | None:
    """The run that is not there yet and tells most, of those as good the cheapest to run; None without one.

    Sizes and resolutions count, not results: C = k N T is taken for the cost.
    """
    runs = {each.run_key: each for each in grid}
    models = {_model(runs[run]): runs[run] for run in sorted(runs) if run not in trained and run in affordable}
    found = most_telling([_point(each) for run, each in sorted(runs.items()) if run in trained], list(models), PLAIN)
    return None if found is None else models[found]


def _model(candidate: Candidate) -> Model:
    return Model(candidate.timm_name, candidate.resolution, float(candidate.backbone_params or 0), candidate.macs or 0)


def _point(candidate: Candidate) -> Point:
    tokens = tokens_of(candidate.resolution, candidate.resolution)
    return Point(candidate.timm_name, candidate.name, float(candidate.backbone_params or 0), tokens, 0.0)


def _is_grid(candidates: Sequence[Candidate]) -> bool:
    sizes = {each.backbone_params for each in candidates}
    return len(sizes) >= LEAST and len({each.resolution for each in candidates}) >= LEAST
