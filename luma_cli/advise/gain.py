"""The expected gain of a run before it is run: for the recommendation under a budget, otherwise for the front.

Under a budget it is the knowledge gradient of Frazier, Powell, Dayanik (2009): a run moves the posterior means along
one line, and the recommendation follows the highest. Of a front it is the expected hypervolume improvement of Yang,
Emmerich, Deutz, Baeck (2019, arXiv 1904.12672), in two dimensions a sum over the steps of the front above the
candidate's cost. A batch is chosen without waiting for results: each chosen run is assumed to come out as expected
(kriging believer: Ginsbourger, Le Riche, Carraro 2010).

Legend: S draws, C candidates, J steps of a front or candidates compared with.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.advise.candidates import MODEST_MACS, Candidate
from luma_cli.advise.costs import training_costs, usual_recipe
from luma_cli.advise.fronts import NUM_DRAWS, TIE_MIOU, Floats
from luma_cli.advise.question import Question
from luma_cli.advise.setting import Judged, worth_training
from luma_cli.catalogue.recipes import default_recipe, recipe_names

# Sample correlations of independent candidates have a standard deviation of 1 / sqrt(draws): up to three are noise.
CHANCE_SDS = 3.0
# Midpoints of equally likely strata of Z: with 200 the error is below 0.002 standard deviations.
NUM_STRATA = 200
# A run must promise this share of the best affordable run's gain. Gain per cost alone would always choose the smallest
# model: costs span a factor of thousands, gains one of ten.
LEAST_PROMISE = 0.5
# A batch ends where the rest promises less than this share of the first run's gain.
LEAST_OF_FIRST = 0.02
# A smaller gain in mIoU does not change a recommendation.
LEAST_REGRET = 0.01
# Only candidates with the highest upper ends can change the winner.
NUM_CONTENDERS = 60
_PAPERS_BEST = ("dinov3", "eva02")  # the best pretrainings in arXiv 2607.00687


@dataclass(frozen=True, slots=True)
class FrontSteps:
    """A front as steps: `heights[j]` is the best mIoU from `edges[j]` up to `edges[j + 1]`, in log2 of cost.

    edges: [J + 1], ascending, the first -inf, the last the reference. heights: [J], the first the reference mIoU.
    """

    edges: Floats
    heights: Floats


def steps(costs: ArrayLike, mious: ArrayLike, reference_cost: float, reference_miou: float = 0.0) -> FrontSteps:
    """The steps of the front of these points [C]; points beyond the reference or with a NaN are left out.

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
    return FrontSteps(
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
    # As `scipy.special.ndtr`, whose import takes a third of a second.
    halved = np.frompyfunc(lambda each: 0.5 * math.erfc(-each * math.sqrt(0.5)), 1, 1)
    return np.asarray(halved(z), dtype=np.float64)


def expected_hypervolume_improvement(costs: ArrayLike, mu: ArrayLike, sd: ArrayLike, front: FrontSteps) -> Floats:
    """The expected gain of the front's hypervolume by each candidate [C], in mIoU points times doublings of cost.

    >>> front = steps([4.0], [40.0], reference_cost=16.0)
    >>> expected_hypervolume_improvement([8.0], [41.0], [0.0], front).tolist()
    [1.0]
    """
    x = np.log2(np.asarray(costs, dtype=np.float64))[:, np.newaxis]
    starts = np.maximum(front.edges[:-1], x)  # [C, J]: of each step only the part above the candidate's cost
    widths = np.maximum(front.edges[1:] - starts, 0.0)
    gains = expected_improvement(np.asarray(mu)[:, np.newaxis], np.asarray(sd)[:, np.newaxis], front.heights)
    return np.asarray((widths * gains).sum(axis=1), dtype=np.float64)


class Believer:
    """Means and variances of C candidates from joint draws [S, C]; each assumed run shrinks the variances."""

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
        self._chance = CHANCE_SDS / np.sqrt(len(values))

    @property
    def sd(self) -> Floats:
        """One standard deviation of each candidate's expected mIoU, given the assumed runs."""
        return np.sqrt(np.maximum(self.variance, 0.0))

    def covariance(self, rows: ArrayLike, columns: ArrayLike) -> Floats:
        """Between candidates [R, J], given the assumed runs. rows, columns: indices."""
        one, other = np.asarray(rows, dtype=np.intp), np.asarray(columns, dtype=np.intp)
        found = self._centred[:, one].T @ self._centred[:, other] / (len(self._centred) - 1)
        found[np.abs(found) < self._chance * np.outer(self._sd[one], self._sd[other])] = 0.0
        for update in self._updates:
            found = found - np.outer(update[one], update[other])
        return np.asarray(found, dtype=np.float64)

    def shifts(self, runs: ArrayLike, columns: ArrayLike) -> Floats:
        """The change of the means of others [R, J] by one run of each, per standard deviation of its result."""
        total = self.variance[np.asarray(runs, dtype=np.intp)] + self._noise**2
        scale = np.where(total > 0, np.sqrt(np.where(total > 0, total, 1.0)), np.inf)
        return np.asarray(self.covariance(runs, columns) / scale[:, np.newaxis], dtype=np.float64)

    def believe(self, index: int) -> None:
        """Assume that the candidate was run, with the expected result."""
        update = self.shifts([index], np.arange(len(self.mean)))[0]
        self._updates.append(update)
        self.variance = np.maximum(self.variance - update**2, 0.0)


def value_of_information(believer: Believer, runs: Sequence[int], within: ArrayLike) -> Floats:
    """Expected drop in regret, in mIoU points, of the recommendation under the budget by each run.

    That is E max_j(mu_j + shift_j Z) - max_j mu_j with Z ~ N(0, 1); zero where no result changes the recommendation.
    runs: indices of candidates. within: [C], which candidates meet the budget.
    """
    allowed = np.flatnonzero(np.asarray(within, dtype=np.bool_))
    if not len(allowed):
        return np.zeros(len(runs))
    normal = NormalDist()
    surprise = np.array([normal.inv_cdf((stratum + 0.5) / NUM_STRATA) for stratum in range(NUM_STRATA)])
    mean, shifts = believer.mean[allowed], believer.shifts(runs, allowed)
    return np.array([_gain(mean, shift, surprise) for shift in shifts], dtype=np.float64)


def _gain(mean: Floats, shift: Floats, surprise: Floats) -> float:
    # Most candidates lead in no stratum and are left out.
    reach = surprise[-1] * np.abs(shift)
    contends = mean + reach >= (mean - reach).max()
    lines = mean[contends, np.newaxis] + shift[contends, np.newaxis] * surprise
    return max(0.0, float(lines.max(axis=0).mean() - mean.max()))


def centred(draws: Floats) -> Floats:
    """The draws [S, C] without the part that all candidates share in each draw; the means stay.

    A shared level moves the whole front and changes no choice on it. Its estimate is the mean of all, shrunk by the
    share of that mean's variance that is common and not chance.
    """
    num = draws.shape[1]
    level = draws.mean(axis=1)
    if num < 2 or level.var() == 0:
        return draws
    covariance = (num * level.var() - draws.var(axis=0).mean()) / (num - 1)
    shared = float(np.clip(covariance / level.var(), 0.0, 1.0))
    return np.asarray(draws - shared * (level - level.mean())[:, np.newaxis], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Pick:
    """A candidate's index and the expected gain of its run, given the picks before it.

    tells_of: the candidate whose new mean brings most of the gain; itself for the front.
    """

    index: int
    gain: float
    tells_of: int


class RunGains:
    """The gain of each run by the joint posterior of all candidates, given the runs assumed so far."""

    def __init__(
        self,
        draws: Floats,
        within: Sequence[bool] | None = None,
        places: ArrayLike = (),
        reference_cost: float = 1.0,
        reference_miou: float = 0.0,
    ) -> None:
        """draws: [S, C] of mIoU. within: which candidates meet the budget; None for gains of the front.

        places: [C] on the front's axis. reference_cost, reference_miou: the limits of the hypervolume.
        """
        self._within, self._places = within, np.asarray(places, dtype=np.float64)
        # A regret is a difference, in which the shared level cancels.
        self.believer = Believer(centred(draws) if within is None else draws, TIE_MIOU)
        self._front = None if within else steps(places, draws.mean(axis=0), reference_cost, reference_miou)

    def gains(self, runs: Sequence[int]) -> Floats:
        """The expected gain of each run, given as index of its candidate."""
        if self._front is None:
            return value_of_information(self.believer, runs, self._within or ())
        at = list(runs)
        mean, sd = self.believer.mean[at], self.believer.sd[at]
        return expected_hypervolume_improvement(self._places[at], mean, sd, self._front)

    def tells_of(self, run: int) -> int:
        """The candidate whose new mean alone brings most gain by this run."""
        allowed = np.flatnonzero(self._within) if self._within else np.empty(0)
        if len(allowed) < 2:
            return run
        mean, shift = self.believer.mean[allowed], np.abs(self.believer.shifts([run], allowed)[0])
        order = np.argsort(-mean, kind="stable")
        rivals = np.full(len(allowed), mean[order[0]])  # of each the best other
        rivals[order[0]] = mean[order[1]]
        gains = expected_improvement(np.where(mean > rivals, rivals - mean, mean - rivals), shift, 0.0)
        return int(allowed[gains.argmax()]) if gains.max() > 0 else run

    def pick(self, runs: Sequence[int], costs: Sequence[float], limit: float, count: int) -> list[Pick]:
        """Up to `count` runs that together cost no more than the limit, most gain per cost first."""
        price = dict(zip(runs, costs, strict=True))
        left, picks, least = list(price), list[Pick](), LEAST_REGRET if self._within else 0.0
        while len(picks) < count:
            left = [run for run in left if price[run] <= limit]
            gains = self.gains(left).tolist() if left else []
            most = max(gains, default=0.0)
            least = least if picks else max(least, LEAST_OF_FIRST * most)
            floor = max(LEAST_PROMISE * most, least)
            # A cheaper run counts as its share of the limit: unspent hours buy nothing.
            share = limit / (count - len(picks)) if math.isfinite(limit) else 0.0
            gain_of = {run: gain for run, gain in zip(left, gains, strict=True) if gain >= floor > 0}
            if not gain_of:
                break
            run = max(gain_of, key=lambda run: (gain_of[run] / max(price[run], share), -run))
            picks.append(Pick(run, gain_of[run], self.tells_of(run)))
            self.believer.believe(run)
            limit -= price[run]
            left.remove(run)
        return picks


def worthiest(
    question: Question, within: Sequence[Judged], model: AccuracyModel, trained: frozenset[tuple[str, int]]
) -> str:
    """The `luma train` line that improves a recommendation most, with its expected gain and cost; or that none does.

    within: every candidate that surely meets the budgets, also without evidence. trained: `run_key` of the user's
    comparable runs, which are not proposed again.
    """
    head = "luma" if question.head == "none" else question.head  # nothing is trained without one
    recipe = usual_recipe(question.dataset, head)
    if not any(each.supported for each in within):
        first = min((each.priced.candidate for each in within), key=first_choice)
        line = command(first, question.dataset, recipe.name, head)
        return f"{line} (no evidence about any candidate: a medium size with one of the best pretrainings)"
    worth = [each for each, is_worth in zip(within, worth_training(within), strict=True) if is_worth] or list(within)
    ranked = sorted(worth, key=lambda each: (-each.prediction.interval_80[1], each.priced.candidate.key))
    contenders = [each.priced for each in ranked[:NUM_CONTENDERS]]
    in_hours = all("gpu_hours" in each.costs for each in contenders)
    costs = training_costs(question, contenders, recipe, in_hours)
    runs = [at for at in costs if contenders[at].candidate.run_key not in trained]
    draws = model.draws([each.subject for each in ranked[:NUM_CONTENDERS]], NUM_DRAWS)
    bench = RunGains(draws, within=[True] * len(contenders))
    picks = bench.pick(runs, [costs[at].value for at in runs], math.inf, 1)
    if not picks:
        return f"no run is expected to improve this by {LEAST_REGRET:g} mIoU; luma next considers the whole front"
    (pick,) = picks
    line = command(contenders[pick.index].candidate, question.dataset, recipe.name, head)
    return f"{line} (expected to improve this choice by {pick.gain:.2f} mIoU, for {costs[pick.index].text} of training)"


def first_choice(candidate: Candidate) -> tuple[bool, bool, float, tuple[str, str, int]]:
    """Sort key of a first run without evidence: the largest of at most MODEST_MACS with a best pretraining."""
    macs = candidate.macs or math.inf
    is_large = macs > MODEST_MACS
    return is_large, candidate.pretraining not in _PAPERS_BEST, macs if is_large else -macs, candidate.key


def command(candidate: Candidate, dataset: str, recipe: str, head: str, epochs: int | None = None) -> str:
    """The `luma train` line of a run on an official dataset; what luma would choose by itself is left out."""
    words = ["luma", "train", candidate.name, "--data", dataset, "--res", str(candidate.resolution)]
    words += (
        [] if recipe == default_recipe(dataset, head, recipe_names(), candidate.timm_name) else ["--recipe", recipe]
    )
    words += [] if head == "luma" else ["--head", head]
    words += [] if epochs is None else ["--epochs", str(epochs)]
    return shlex.join(words)
