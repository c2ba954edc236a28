"""What to train next: runs by what they are expected to add, for what they cost, with a proxy and a run for the law."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from luma_cli.accuracy.prediction import Prediction
from luma_cli.advise.axis import place
from luma_cli.advise.believer import Believer
from luma_cli.advise.budgets import Priced
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.drawn_front import Floats
from luma_cli.advise.ehvi import expected_hypervolume_improvement, steps
from luma_cli.advise.front import on_front
from luma_cli.advise.hypervolume import REFERENCE_COST
from luma_cli.advise.information import value_of_information
from luma_cli.advise.ties import TIE_MIOU
from luma_cli.advise.training_cost import TrainingCost
from luma_cli.units import BudgetKind

Purpose = Literal["front", "budget", "first", "proxy", "exponents"]
# Of what the most promising run that can be paid promises; less is not proposed, however cheap. Without it gain per
# cost would always name the smallest model: prices span a factor of thousands, gains of ten.
LEAST_PROMISE = 0.5
# Points of mIoU below which no run is said to change a recommendation.
LEAST_REGRET = 0.01


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

    @property
    def run(self) -> tuple[str, int]:
        """What names the run among those that were done."""
        return self.candidate.timm_name, self.candidate.resolution


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
    """The place of a prospect in the list, and what it is expected to add given the picks before it."""

    index: int
    gain: float


def centred(draws: Floats, members: Sequence[int]) -> Floats:
    """The draws [S, C] less what the members of the front have in common in each draw, around the same means.

    The level that all share (how LUMA compares to other heads, say) moves the whole front and no choice on it.
    """
    common = draws[:, list(members)].mean(axis=1, keepdims=True)
    return np.asarray(draws - common + common.mean(), dtype=np.float64)


class Bench:
    """The prospects with the joint posterior of all candidates: what each run adds, given those believed done."""

    def __init__(self, places: Floats, draws: Floats, kind: BudgetKind, within: Sequence[bool] | None = None) -> None:
        """places: [C] on the axis. draws: [S, C] of mIoU. within: whether a budget is met, None without a budget."""
        self._places, self._kind, self._within = places, kind, within
        means = draws.mean(axis=0)
        members = [i for i, kept in enumerate(on_front([(at,) for at in places.tolist()], means.tolist())) if kept]
        # What is common to all cancels in a regret by itself.
        self.believer = Believer(draws if within else centred(draws, members), TIE_MIOU)
        self._front = steps(places, means, REFERENCE_COST[kind])

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

    def pick(self, runs: Sequence[int], costs: Sequence[float], limit: float, count: int) -> list[Pick]:
        """Up to `count` of the runs, most gain per cost first, that cost no more than the limit together."""
        price = dict(zip(runs, costs, strict=True))
        left, picks = list(price), list[Pick]()
        while len(picks) < count:
            left = [run for run in left if price[run] <= limit]
            gains = self.gains(left).tolist() if left else []
            floor = max(LEAST_PROMISE * max(gains, default=0.0), LEAST_REGRET if self.is_under_budget else 0.0)
            worth = [
                (gain / price[run], -run, gain) for run, gain in zip(left, gains, strict=True) if gain >= floor > 0
            ]
            if not worth:
                break
            _, negative, gain = max(worth)
            picks.append(Pick(-negative, gain))
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
