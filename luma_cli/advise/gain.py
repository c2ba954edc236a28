"""What a run is expected to add to the front, in closed form, before it is run.

With a known cost and mIoU ~ N(mu, sd^2), the expected improvement of the two-dimensional hypervolume is a sum over the
steps of the front above the candidate's cost: width of the step times the expected improvement over its height. Yang,
Emmerich, Deutz, Baeck: Efficient computation of expected hypervolume improvement (2019, arXiv 1904.12672).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from luma_cli.advise.candidates import Candidate
from luma_cli.advise.fronts import Floats
from luma_cli.scaling.law import PLAIN, Point, tokens_of
from luma_cli.scaling.series import MOST_PARAMS, Model, most_telling


@dataclass(frozen=True, slots=True)
class Steps:
    """A front as steps: `heights[j]` is the best mIoU from `edges[j]` up to `edges[j + 1]`, in log2 of cost.

    edges: [J + 1], ascending, the first -inf, the last the reference. heights: [J], the first the reference mIoU.
    """

    edges: Floats
    heights: Floats


def steps(costs: ArrayLike, mious: ArrayLike, reference_cost: float, reference_miou: float = 0.0) -> Steps:
    """The steps of the front of these points [C]: those dominated, beyond the reference or with a NaN add none.

    >>> steps([2, 4, 8], [40.0, 39.0, 42.0], reference_cost=16).heights.tolist()
    [0.0, 40.0, 42.0]
    """
    cost, miou = np.asarray(costs, dtype=np.float64), np.asarray(mious, dtype=np.float64)
    known = (cost > 0) & (cost < reference_cost) & (miou > reference_miou)
    cost, miou = cost[known], miou[known]
    order = np.lexsort((-miou, cost))
    cost, miou = cost[order], miou[order]
    before = np.concatenate(([reference_miou], np.maximum.accumulate(miou)[:-1])) if len(miou) else miou
    kept = miou > before
    return Steps(
        np.concatenate(([-np.inf], np.log2(cost[kept]), [np.log2(reference_cost)])),
        np.concatenate(([reference_miou], miou[kept])),
    )


def expected_improvement(mu: ArrayLike, sd: ArrayLike, best: ArrayLike) -> Floats:
    """E max(Y - best, 0) for Y ~ N(mu, sd^2), broadcast; max(mu - best, 0) where sd is 0.

    >>> round(float(expected_improvement(0.0, 1.0, 0.0)), 4)
    0.3989
    """
    mean, spread, top = (np.asarray(each, dtype=np.float64) for each in (mu, sd, best))
    gap, safe = mean - top, np.where(spread > 0, spread, 1.0)
    z = gap / safe
    value = gap * _normal_cdf(z) + safe * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    return np.asarray(np.where(spread > 0, np.maximum(value, 0.0), np.maximum(gap, 0.0)), dtype=np.float64)


def _normal_cdf(z: Floats) -> Floats:
    """As `scipy.special.ndtr`, without the third of a second that importing it takes."""
    halved = np.frompyfunc(lambda each: 0.5 * math.erfc(-each * math.sqrt(0.5)), 1, 1)
    return np.asarray(halved(z), dtype=np.float64)


def expected_hypervolume_improvement(costs: ArrayLike, mu: ArrayLike, sd: ArrayLike, front: Steps) -> Floats:
    """What each candidate [C] is expected to add to the front's hypervolume, in mIoU points times doublings of cost.

    >>> front = steps([4.0], [40.0], reference_cost=16.0)
    >>> expected_hypervolume_improvement([8.0], [41.0], [0.0], front).tolist()
    [1.0]
    """
    x = np.log2(np.asarray(costs, dtype=np.float64))[:, np.newaxis]
    starts = np.maximum(front.edges[:-1], x)  # [C, J]: of each step only the part above the candidate's cost
    widths = np.maximum(front.edges[1:] - starts, 0.0)
    gains = expected_improvement(np.asarray(mu)[:, np.newaxis], np.asarray(sd)[:, np.newaxis], front.heights)
    return np.asarray((widths * gains).sum(axis=1), dtype=np.float64)


# Correlations of independent candidates have a standard deviation of 1 / sqrt(draws); below this many they are noise.
CHANCE_SDS = 3.0


class Believer:
    """Means and variances of C candidates from joint draws [S, C], updated for each run that is believed."""

    def __init__(self, draws: ArrayLike, noise_sd: float) -> None:
        """noise_sd: of one run's mIoU around its expectation (seed noise), in points, zero or more."""
        values = np.asarray(draws, dtype=np.float64)
        if values.ndim != 2 or len(values) < 2:
            raise ValueError(f"draws have shape {values.shape}, expected [S, C] with two draws or more")
        self.mean: Floats = values.mean(axis=0)
        self._centred: Floats = values - self.mean
        self._noise = noise_sd
        self._updates: list[Floats] = []
        self.variance: Floats = np.asarray((self._centred**2).sum(axis=0) / (len(values) - 1), dtype=np.float64)
        self._sd: Floats = self.sd
        # Correlations that so many draws show by chance alone.
        self._chance = CHANCE_SDS / np.sqrt(len(values))

    @property
    def sd(self) -> Floats:
        """One standard deviation of each candidate's expected mIoU, given what is believed."""
        return np.sqrt(np.maximum(self.variance, 0.0))

    def covariance(self, rows: ArrayLike, columns: ArrayLike) -> Floats:
        """Between candidates [R, J], given what is believed. rows, columns: indices."""
        one, other = np.asarray(rows, dtype=np.intp), np.asarray(columns, dtype=np.intp)
        found = self._centred[:, one].T @ self._centred[:, other] / (len(self._centred) - 1)
        found[np.abs(found) < self._chance * np.outer(self._sd[one], self._sd[other])] = 0.0
        for update in self._updates:
            found = found - np.outer(update[one], update[other])
        return np.asarray(found, dtype=np.float64)

    def shifts(self, runs: ArrayLike, columns: ArrayLike) -> Floats:
        """How far one run of each candidate moves the means of others [R, J], per standard deviation of its result."""
        total = self.variance[np.asarray(runs, dtype=np.intp)] + self._noise**2
        scale = np.where(total > 0, np.sqrt(np.where(total > 0, total, 1.0)), np.inf)
        return np.asarray(self.covariance(runs, columns) / scale[:, np.newaxis], dtype=np.float64)

    def believe(self, index: int) -> None:
        """Take the candidate's run as done, with the result that was expected."""
        update = self.shifts([index], np.arange(len(self.mean)))[0]
        self._updates.append(update)
        self.variance = np.maximum(self.variance - update**2, 0.0)


# Midpoints of equally likely strata of Z; the error falls with their square, below 0.002 standard deviations here.
NUM_STRATA = 200


def value_of_information(believer: Believer, runs: Sequence[int], within: ArrayLike) -> Floats:
    """Expected drop in regret, in mIoU points, of the configuration recommended under the budget, for each run.

    runs: indices of candidates that could be trained. within: [C], which candidates meet the budget and could be
    recommended. Zero where no result could change the recommendation.
    """
    allowed = np.flatnonzero(np.asarray(within, dtype=np.bool_))
    if not len(allowed):
        return np.zeros(len(runs))
    normal = NormalDist()
    surprise = np.array([normal.inv_cdf((stratum + 0.5) / NUM_STRATA) for stratum in range(NUM_STRATA)])
    mean, shifts = believer.mean[allowed], believer.shifts(runs, allowed)
    return np.array([_gain(mean, shift, surprise) for shift in shifts], dtype=np.float64)


def _gain(mean: Floats, shift: Floats, surprise: Floats) -> float:
    """Over what could lead in some stratum: most candidates are beaten in all of them."""
    reach = surprise[-1] * np.abs(shift)
    contends = mean + reach >= (mean - reach).max()
    lines = mean[contends, np.newaxis] + shift[contends, np.newaxis] * surprise
    return max(0.0, float(lines.max(axis=0).mean() - mean.max()))


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
