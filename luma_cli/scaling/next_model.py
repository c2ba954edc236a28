"""From the exponents to a model: of one series, what is within k times the compute and nearest to the best split."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from luma_cli.errors import UsageError
from luma_cli.scaling.law import Law
from luma_cli.scaling.local import Local
from luma_cli.scaling.optimal import Split, best_point
from luma_cli.scaling.point import TOKEN_PIXELS
from luma_cli.scaling.series import Model, Series


@dataclass(frozen=True, slots=True)
class Target:
    """Where `factor` times the compute of a model would be spent best, if sizes and resolutions were continuous.

    macs: the budget. side: of the square crop with `tokens`, in pixels.
    """

    factor: float
    macs: float
    params: float
    tokens: float

    @property
    def side(self) -> float:
        """Side in pixels of the square crop."""
        return TOKEN_PIXELS * math.sqrt(self.tokens)

    def to_json(self) -> dict[str, Any]:
        """The budget and the point."""
        return {
            "factor": self.factor,
            "budget_macs": self.macs,
            "params": self.params,
            "tokens": self.tokens,
            "side": self.side,
        }


def check_factor(factor: float) -> float:
    """`factor` itself. Raises UsageError unless it is a number above 1."""
    if not (math.isfinite(factor) and factor > 1):
        raise UsageError(f"--more is {factor:g}, expected how many times more compute there is; try --more 10")
    return factor


def target(at: Local, factor: float, exponents: Split) -> Target:
    """The point for `factor` times the compute of `at`. Raises UsageError unless factor is a number above 1."""
    check_factor(factor)
    params, tokens = best_point(at.model.params, at.model.tokens, factor, exponents)
    return Target(factor, at.model.macs * factor, params, tokens)


def affordable(series: Series, at: Local, wanted: Target) -> list[Model]:
    """Models of the series with public weights that cost more than `at` and no more than the budget, by label."""
    return sorted(
        (
            model
            for model in series.models.values()
            if model.public_weights and at.model.macs < model.macs <= wanted.macs
        ),
        key=lambda model: model.label,
    )


def next_model(series: Series, at: Local, wanted: Target, law: Law | None = None) -> Model | None:
    """The affordable model with the least error by the law, or, without one, nearest to the target.

    Near is measured in compute: |p ln N/N*| + |q ln T/T*|. None where nothing affordable is larger than `at`.
    """
    p, q = at.elasticity.p, at.elasticity.q

    def far(model: Model) -> float:
        if law is not None:
            return law.error(model.params, model.tokens)
        return abs(p * math.log(model.params / wanted.params)) + abs(q * math.log(model.tokens / wanted.tokens))

    found = affordable(series, at, wanted)
    return min(found, key=lambda model: (far(model), model.macs, model.label)) if found else None


def cheapest_larger(series: Series, at: Local) -> Model | None:
    """The cheapest model of the series with public weights that costs more than `at`; None at the top."""
    larger = [each for each in series.models.values() if each.public_weights and each.macs > at.model.macs]
    return min(larger, key=lambda model: (model.macs, model.label), default=None)
