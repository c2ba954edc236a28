"""How the answer changes with the budget: what is recommended first, on what evidence, whether it ever goes back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luma_cli.accuracy.model import load_model
from luma_cli.advise.question import Question
from luma_cli.advise.recommend import Recommended, first_choices
from luma_cli.advise.setting import Fit, load
from luma_cli.units import Budget

LEAST_GFLOPS, MOST_GFLOPS, NUM_BUDGETS = 2.0, 3000.0, 40


@dataclass(frozen=True, slots=True)
class SweptBudget:
    """A budget in GFLOPs of a crop, and the first row of its answer; None where nothing is recommended."""

    gflops: float
    first: Recommended | None

    @property
    def is_guess(self) -> bool:
        """Whether the first row is outside of the evidence."""
        return self.first is not None and (
            self.first.prediction.extrapolated or self.first.prediction.support.standing == "none"
        )

    def __json__(self) -> dict[str, Any]:
        first = self.first
        return {
            "gflops": self.gflops,
            "backbone": first and first.candidate.name,
            "resolution": first and first.candidate.resolution,
            "miou": first and first.prediction.miou_percent,
            "standing": first and first.prediction.support.standing,
            "is_guess": self.is_guess,
        }


def log_spaced(least: float = LEAST_GFLOPS, most: float = MOST_GFLOPS, count: int = NUM_BUDGETS) -> list[float]:
    """So many budgets with equal ratios, both ends among them.

    >>> [round(each) for each in log_spaced(1, 100, 3)]
    [1, 10, 100]
    """
    return [least * (most / least) ** (at / (count - 1)) for at in range(count)]


def sweep(
    dataset: str, gflops: Sequence[float] = (), database: Path | None = None, fit: Fit = load_model
) -> list[SweptBudget]:
    """The first row of `luma recommend --budget Ngflops` for each N; 40 log-spaced ones when none are given."""
    limits = list(gflops) or log_spaced()
    setting = load(Question(dataset), ("macs",), database, fit)
    budgets = [Budget("macs", limit * 1e9, f"{limit:.4g}gflops") for limit in limits]
    found = first_choices(setting.question, setting.pool, setting.model, budgets)
    return [SweptBudget(limit, first) for limit, first in zip(limits, found, strict=True)]


def share_of_guesses(swept: Sequence[SweptBudget]) -> float:
    """Of the answers, the share whose first row is outside of the evidence."""
    answered = [each for each in swept if each.first is not None]
    return sum(each.is_guess for each in answered) / len(answered) if answered else math.nan


def reversals(swept: Sequence[SweptBudget]) -> int:
    """How often a wider budget goes back to a backbone that a narrower one had left."""
    names = [each.first.candidate.timm_name for each in swept if each.first is not None]
    runs = [name for at, name in enumerate(names) if at == 0 or name != names[at - 1]]
    return len(runs) - len(set(runs))
