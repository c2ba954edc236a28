"""What to train next: runs by what they are expected to add, for what they cost, with a proxy and a run for the law."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from luma_cli.accuracy.sightings import Prediction
from luma_cli.advise.axis import place
from luma_cli.advise.believer import Believer
from luma_cli.advise.budgets import Priced
from luma_cli.advise.candidates import MODEST_MACS, Candidate
from luma_cli.advise.drawn_front import Floats
from luma_cli.advise.ehvi import expected_hypervolume_improvement, expected_improvement, steps
from luma_cli.advise.hypervolume import REFERENCE_COST
from luma_cli.advise.information import value_of_information
from luma_cli.advise.ties import TIE_MIOU
from luma_cli.advise.training_cost import TrainingCost
from luma_cli.units import BudgetKind

Purpose = Literal["front", "budget", "first", "proxy", "exponents"]
# Of what the most promising run that can be paid promises; less is not proposed, however cheap. Without it gain per
# cost would always name the smallest model: prices span a factor of thousands, gains of ten.
LEAST_PROMISE = 0.5
# Of what the most promising run promised before any was chosen; a batch ends where the rest promises less.
LEAST_OF_FIRST = 0.02
# Points of mIoU below which no run is said to change a recommendation.
LEAST_REGRET = 0.01
_PAPERS_BEST = ("dinov3", "eva02")  # pretrainings that arXiv 2607.00687 found best


@dataclass(frozen=True, slots=True)
class Prospect:
    """A candidate that could be trained, with what its training costs and what is expected of it."""

    priced: Priced
    prediction: Prediction
    cost: TrainingCost

    @property
    def candidate(self) -> Candidate:
        """The backbone, pretraining and resolution."""
        return self.priced.candidate


@dataclass(frozen=True, slots=True)
class NextRun:
    """One run that is proposed. gain: in `gain_unit`, None where it is not a number. command: the exact line."""

    purpose: Purpose
    candidate: Candidate
    prediction: Prediction
    cost: TrainingCost
    why: str
    command: str
    gain: float | None = None
    gain_unit: str = ""

    def to_json(self) -> dict[str, Any]:
        """What is run, why, what it is expected to add, and what it costs."""
        return {
            "purpose": self.purpose,
            **self.candidate.to_json(),
            **self.prediction.to_json(),
            "training_cost": self.cost.to_json(),
            "expected_gain": self.gain,
            "gain_unit": self.gain_unit or None,
            "why": self.why,
            "command": self.command,
        }


@dataclass(frozen=True, slots=True)
class Pick:
    """A candidate by its place in the list, and what its run is expected to add given the picks before it.

    tells_of: the candidate through whom it is worth that; itself for the front.
    """

    index: int
    gain: float
    tells_of: int


def centred(draws: Floats) -> Floats:
    """The draws [S, C] less what all candidates have in common in each draw, around the same means.

    The level that all share (how LUMA compares to other heads, say) moves the whole front and no choice on it. It is
    estimated by the mean of all, shrunk by the part of that mean's variance that is shared and not chance.
    """
    num = draws.shape[1]
    level = draws.mean(axis=1)
    if num < 2 or level.var() == 0:
        return draws
    covariance = (num * level.var() - draws.var(axis=0).mean()) / (num - 1)
    shared = float(np.clip(covariance / level.var(), 0.0, 1.0))
    return np.asarray(draws - shared * (level - level.mean())[:, np.newaxis], dtype=np.float64)


class Bench:
    """The prospects with the joint posterior of all candidates: what each run adds, given those believed done."""

    def __init__(
        self,
        places: Floats,
        draws: Floats,
        kind: BudgetKind,
        within: Sequence[bool] | None = None,
        reference: tuple[float, float] | None = None,
    ) -> None:
        """places: [C] on the axis. draws: [S, C] of mIoU. within: whether a budget is met, None without a budget.

        reference: the largest cost and the least mIoU that count for the hypervolume; the kind's fixed one when None.
        """
        self._places, self._within = places, within
        means = draws.mean(axis=0)
        # What is common to all cancels in a regret by itself.
        self.believer = Believer(draws if within else centred(draws), TIE_MIOU)
        self._front = steps(places, means, *(reference or (REFERENCE_COST[kind], 0.0)))

    @property
    def is_under_budget(self) -> bool:
        """Whether gains are of the recommendation under a budget; else of the front."""
        return self._within is not None

    @property
    def gain_unit(self) -> str:
        """What gains are counted in."""
        return "mIoU points of regret" if self.is_under_budget else "mIoU points x doublings"

    def gains(self, runs: Sequence[int]) -> Floats:
        """What each of the runs, indices of candidates, is expected to add."""
        if self._within is not None:
            return value_of_information(self.believer, runs, self._within)
        at = list(runs)
        mean, sd = self.believer.mean[at], self.believer.sd[at]
        return expected_hypervolume_improvement(self._places[at], mean, sd, self._front)

    def tells_of(self, run: int) -> int:
        """Through whom the run is worth most: whose new mean alone would change the recommendation for most gain."""
        allowed = np.flatnonzero(np.ones(len(self._places), bool) if self._within is None else self._within)
        if len(allowed) < 2:
            return run
        mean, shift = self.believer.mean[allowed], np.abs(self.believer.shifts([run], allowed)[0])
        order = np.argsort(-mean, kind="stable")
        rivals = np.full(len(allowed), mean[order[0]])  # of each the best other
        rivals[order[0]] = mean[order[1]]
        gains = expected_improvement(np.where(mean > rivals, rivals - mean, mean - rivals), shift, 0.0)
        return int(allowed[gains.argmax()]) if gains.max() > 0 else run

    def pick(self, runs: Sequence[int], costs: Sequence[float], limit: float, count: int) -> list[Pick]:
        """Up to `count` of the runs, most gain per cost first, that cost no more than the limit together.

        A run that costs less than its share of a finite limit counts as that share: what is not spent buys nothing.
        """
        price = dict(zip(runs, costs, strict=True))
        left, picks, least = list(price), list[Pick](), LEAST_REGRET if self.is_under_budget else 0.0
        while len(picks) < count:
            left = [run for run in left if price[run] <= limit]
            gains = self.gains(left).tolist() if left else []
            most = max(gains, default=0.0)
            least = least if picks else max(least, LEAST_OF_FIRST * most)
            floor = max(LEAST_PROMISE * most, least)
            share = limit / (count - len(picks)) if math.isfinite(limit) else 0.0
            worth = [
                (gain / max(price[run], share), -run, gain)
                for run, gain in zip(left, gains, strict=True)
                if gain >= floor > 0
            ]
            if not worth:
                break
            _, negative, gain = max(worth)
            picks.append(Pick(-negative, gain, self.tells_of(-negative) if self.is_under_budget else -negative))
            self.believer.believe(-negative)
            limit -= price[-negative]
            left.remove(-negative)
        return picks


def rival(first: Prospect, prospects: Sequence[Prospect], kind: BudgetKind, reach: float = 1.5) -> Prospect | None:
    """The best expected prospect of other weights at about the same cost and the same resolution; None without one."""
    at = place(first.priced, kind)
    others = [
        each
        for each in prospects
        if each.candidate.timm_name != first.candidate.timm_name
        and each.candidate.resolution == first.candidate.resolution
        and 1 / reach <= place(each.priced, kind) / at <= reach
    ]
    return min(others, key=lambda each: (-each.prediction.miou_percent, each.candidate.key), default=None)


def first_choice(candidate: Candidate) -> tuple[bool, bool, float, tuple[str, str, int]]:
    """Sort key of a first run where nothing is known: of at most MODEST_MACS with a pretraining that the paper found
    best the largest.
    """
    macs = candidate.macs or math.inf
    is_large = macs > MODEST_MACS
    return is_large, candidate.pretraining not in _PAPERS_BEST, macs if is_large else -macs, candidate.key


def command(candidate: Candidate, dataset: str, recipe: str, head: str, epochs: int | None = None) -> str:
    """The `luma train` line of a run: official dataset, resolution, recipe by name, head.

    >>> from luma_cli.advise.candidates import Candidate
    >>> command(Candidate("vit_s.dinov3", "t", "a", 512, None, None), "ade20k", "ade20k", "luma")
    'luma train vit_s.dinov3 --data ade20k --res 512 --recipe ade20k --head luma'
    """
    words = ["luma", "train", candidate.name, "--data", dataset, "--res", str(candidate.resolution)]
    words += ["--recipe", recipe, "--head", head]
    words += [] if epochs is None else ["--epochs", str(epochs)]
    return shlex.join(words)
