"""Which runs would tell the exponents: a grid of sizes and resolutions, and how sure n would be after them.

How sure is read off the Fisher information of the law at the runs' sizes and tokens, for seeds that scatter by
`NOISE_MIOU`; docs/scaling.md has the same by simulation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from luma_cli.scaling.optimal import Elasticity
from luma_cli.scaling.point import Point, distinct
from luma_cli.scaling.series import Model, Series

# Scatter of one run between seeds, in mIoU points: what recommend.md's simulation takes.
NOISE_MIOU = 0.2
# Sides of a design: 9 runs decide well, 16 give the exponents within 0.05 (docs/scaling.md).
DECIDE, MEASURE = 3, 4
# Sizes beyond this are left out of a design where enough smaller ones exist: ViT-7B costs 20 times ViT-H+.
MOST_PARAMS = 1.5e9
# What is believed of (a, b, E, A, B) before any run, as standard deviations: wide, only to rank first runs.
_BELIEF = (0.3, 0.8, 20.0, 15.0, 15.0)
_Z90 = 1.645


@dataclass(frozen=True, slots=True)
class Shape:
    """The law that a design is judged by: E, A, B in points of 100 - mIoU at N0 and T0, and the exponents.

    The default has the paper's split (a/b = 0.205) and errors of fine-tuned ViTs on ADE20K: 57 for ViT-S at 256 px to
    41 for ViT-H at 1024 px. It is a yardstick for designs, no result.
    """

    floor: float = 25.0
    by_size: float = 14.0
    by_tokens: float = 9.0
    a: float = 0.17
    b: float = 0.83
    params_mean: float = 86e6
    tokens_mean: float = 1024.0


ASSUMED = Shape()


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a design, and whether a result of the user's own is there already."""

    model: Model
    done: bool


@dataclass(frozen=True, slots=True)
class Experiment:
    """A grid of runs in one series.

    half_width: of the 90% interval of n after all runs, if the law were `ASSUMED` and seeds scattered by NOISE_MIOU.
    """

    series: str
    runs: tuple[Planned, ...]
    half_width: float

    @property
    def missing(self) -> tuple[Model, ...]:
        """The runs that are not there yet, cheapest first."""
        left = (each.model for each in self.runs if not each.done)
        return tuple(sorted(left, key=lambda model: (model.macs, model.label)))

    def to_json(self, dataset: str) -> dict[str, Any]:
        """Every run with exact cost and command, and what they would tell."""
        return {
            "series": self.series,
            "runs": [
                {**each.model.to_json(), "done": each.done, "command": each.model.train_line(dataset)}
                for each in self.runs
            ],
            "expected_half_width_90_of_n": self.half_width,
            "assuming": f"the paper's split and {NOISE_MIOU} mIoU between seeds",
        }


def experiment(series: Series, side: int, elasticity: Elasticity, points: Sequence[Point] = ()) -> Experiment | None:
    """A grid of `side` sizes and resolutions, spread evenly in logs; None where the series has too few of either.

    points: of the user's own; runs that they hold are marked done.
    """
    sizes = _sizes(series, side)
    resolutions = _spread([float(each) for each in series.resolutions], side)
    models = [series.models.get((size, int(side_px))) for size in sizes for side_px in resolutions]
    if len(sizes) < side or len(resolutions) < side or None in models:
        return None
    chosen = [model for model in models if model is not None]
    held = {(point.name, point.side) for point in points if point.own}
    runs = tuple(Planned(model, (model.name, model.resolution) in held) for model in chosen)
    after = size_exponent_sd([(each.params, each.tokens) for each in chosen], elasticity)
    return Experiment(series.name, runs, _Z90 * after)


def _sizes(series: Series, count: int) -> list[str]:
    """Sizes with public weights, spread in the logarithm of their parameters."""
    params = {name: model.params for (name, _), model in sorted(series.models.items()) if model.public_weights}
    usual = {name: value for name, value in params.items() if value <= MOST_PARAMS}
    by_params = {value: name for name, value in sorted(usual.items(), reverse=True)}
    return [by_params[value] for value in _spread(distinct(list(by_params)), count)]


def _spread(values: Sequence[float], count: int) -> list[float]:
    """`count` of ascending values, ends included, nearest to even steps of their logarithm; fewer if there are."""
    left = sorted(values)
    if len(left) <= count:
        return left
    step = math.log(left[-1] / left[0]) / (count - 1)
    chosen: list[float] = []
    for index in range(count):
        wanted = math.log(left[0]) + index * step
        best = min((each for each in left if each not in chosen), key=lambda each: abs(math.log(each) - wanted))
        chosen.append(best)
    return sorted(chosen)


def size_exponent_sd(
    runs: Sequence[tuple[float, float]], elasticity: Elasticity, *, shape: Shape = ASSUMED, prior: bool = False
) -> float:
    """Standard deviation of n after runs of these (params, tokens); infinity where they do not tell it.

    prior: with a wide belief about the law, which makes it finite from the first run on: what `most_telling` needs.
    """
    import numpy as np

    params, tokens = np.array(runs, dtype=np.float64).reshape(-1, 2).T
    by_size = (params / shape.params_mean) ** -shape.a
    by_tokens = (tokens / shape.tokens_mean) ** -shape.b
    slopes = np.stack(
        [
            -shape.by_size * by_size * np.log(params / shape.params_mean),
            -shape.by_tokens * by_tokens * np.log(tokens / shape.tokens_mean),
            np.ones_like(by_size),
            by_size,
            by_tokens,
        ],
        axis=1,
    )
    information = slopes.T @ slopes / NOISE_MIOU**2 + (np.diag(np.array(_BELIEF) ** -2) if prior else 0.0)
    if not prior and np.linalg.matrix_rank(slopes) < slopes.shape[1]:
        return math.inf
    weight = (elasticity.p * shape.b + elasticity.q * shape.a) ** 2
    # n = b / (pb + qa): its slopes by a and b.
    gradient = np.array([-elasticity.q * shape.b / weight, elasticity.q * shape.a / weight, 0.0, 0.0, 0.0])
    return float(np.sqrt(gradient @ np.linalg.solve(information, gradient)))


def most_telling(points: Sequence[Point], candidates: Sequence[Model], elasticity: Elasticity) -> Model | None:
    """The candidate whose run narrows n most, given results on one level; the cheapest of those within 2%."""
    runs = [(point.params, point.tokens) for point in points]
    after = {
        model: size_exponent_sd([*runs, (model.params, model.tokens)], elasticity, prior=True) for model in candidates
    }
    if not after:
        return None
    least = min(after.values())
    return min((model for model in after if after[model] <= 1.02 * least), key=lambda model: (model.macs, model.label))
