"""What training a candidate costs: GPU-hours where this device is known, else multiply-adds of the whole schedule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from luma_cli.advise.budgets import Priced
from luma_cli.catalogue.datasets import load_card
from luma_cli.catalogue.recipes import Recipe, default_recipe, load_recipe, recipe_names
from luma_cli.units import FlopConvention, gflops

CostUnit = Literal["GPU-hours", "PFLOP"]
# A training step is a forward pass and a backward pass of twice its multiply-adds.
STEP_PER_FORWARD = 3


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """Of one run. low, high: the central 80% interval, equal to value when counted. source: where it comes from."""

    value: float
    low: float
    high: float
    unit: CostUnit
    source: str

    @property
    def text(self) -> str:
        """e.g. `5.2 GPU-hours (80%: 4 to 6.8)`."""
        ends = f" (80%: {rounded(self.low)} to {rounded(self.high)})" if self.low < self.high else ""
        return f"{rounded(self.value)} {self.unit}{ends}"

    def share(self, part: float) -> TrainingCost:
        """The cost of this part of the schedule."""
        return replace(self, value=self.value * part, low=self.low * part, high=self.high * part)

    def to_json(self) -> dict[str, Any]:
        """The value with its unit, interval and source."""
        return {"value": self.value, "interval_80": [self.low, self.high], "unit": self.unit, "source": self.source}


def rounded(value: float) -> str:
    """A cost to three digits, thousands separated, without an exponent.

    >>> rounded(5.234), rounded(44_412.0)
    ('5.23', '44,400')
    """
    return f"{value:.3g}" if value < 999.5 else f"{float(f'{value:.3g}'):,.0f}"


def usual_recipe(dataset: str, head: str) -> Recipe:
    """The shipped recipe that a run of this dataset and head follows."""
    return load_recipe(default_recipe(dataset, head, recipe_names()))


def num_images_seen(recipe: Recipe, dataset: str) -> float:
    """Crops that a training sees, of the official training split."""
    if recipe.steps:
        return float(recipe.steps * recipe.batch)
    return recipe.epochs * load_card(dataset).splits["train"].count


def training_cost(
    priced: Priced, num_images: float, in_hours: bool, convention: FlopConvention = "mac"
) -> TrainingCost | None:
    """Of the candidate's whole schedule; None where it is not known.

    in_hours: GPU-hours of this device; else PFLOP, multiply-adds in the convention, which rank runs but are no time.
    """
    if in_hours:
        hours = priced.costs.get("gpu_hours")
        return None if hours is None else TrainingCost(hours.value, hours.low, hours.high, "GPU-hours", hours.origin)
    macs = priced.candidate.macs
    if macs is None:
        return None
    total = gflops(macs, convention) * STEP_PER_FORWARD * num_images / 1e6
    return TrainingCost(total, total, total, "PFLOP", "counted")
