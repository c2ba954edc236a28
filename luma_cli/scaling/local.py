"""Exact local elasticities of compute: how C(N, T) grows from one model to its neighbours in size and resolution.

Slopes of ln C between the next smaller and the next larger neighbour, one-sided at the ends. ViT's C is 2NT plus
attention's share in T^2, so q grows with resolution and shrinks with width: a law's exponents hold locally only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luma_cli.errors import NoAnswer
from luma_cli.scaling.optimal import Elasticity
from luma_cli.scaling.series import Model, Series

# Neighbours are at least this factor apart in parameters or tokens: ViT-S and S+ differ in more than size.
_NEIGHBOUR = 1.4


@dataclass(frozen=True, slots=True)
class Local:
    """The elasticities at one model, and the neighbours that they were read from (labels)."""

    model: Model
    elasticity: Elasticity
    neighbours: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The model, p and q, and what they are slopes between."""
        return {
            **self.model.to_json(),
            "p": self.elasticity.p,
            "q": self.elasticity.q,
            "between": list(self.neighbours),
        }


def local(series: Series, model: Model) -> Local:
    """The elasticities at a model. Raises NoAnswer where it has no neighbour in size or resolution."""
    same_resolution = [each for each in series.models.values() if each.resolution == model.resolution]
    same_size = [each for each in series.models.values() if each.name == model.name]
    sizes = _around(model, same_resolution, model.params, [each.params for each in same_resolution])
    resolutions = _around(model, same_size, model.tokens, [each.tokens for each in same_size])
    if len(sizes) < 2 or len(resolutions) < 2:
        what = "size" if len(sizes) < 2 else "resolution"
        raise NoAnswer(f"{model.label} has no neighbour in {what} in the cost table; compute's slope there is unknown")
    p = _slope([each.params for each in sizes], [each.macs for each in sizes])
    q = _slope([each.tokens for each in resolutions], [each.macs for each in resolutions])
    labels = [each.label for each in (*sizes, *resolutions) if each != model]
    return Local(model, Elasticity(p, q), tuple(dict.fromkeys(labels)))


def _around(model: Model, models: Sequence[Model], at: float, values: Sequence[float]) -> list[Model]:
    """The nearest smaller and larger of `models` by `values`, with `model` in place of a missing one."""
    pairs = sorted(zip(values, models, strict=True), key=lambda pair: (pair[0], pair[1].name))
    below = [each for value, each in pairs if value * _NEIGHBOUR <= at]
    above = [each for value, each in pairs if value >= at * _NEIGHBOUR]
    if not below and not above:
        return []
    return [below[-1] if below else model, above[0] if above else model]


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    return math.log(y[-1] / y[0]) / math.log(x[-1] / x[0])
