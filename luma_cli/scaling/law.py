"""The scaling law err(N, T) = E + A N^-a + B T^-b of 100 - mIoU in parameters and image tokens, and its fit.

Variable projection with non-negative least squares: on a grid over (a, b) the rest is closed form, then a polish.
Parabolas through iso-FLOP profiles are biased when a and b differ (arXiv 2603.22339), and a and b of segmentation do
about fivefold (arXiv 2607.00687). Loss: squares of mIoU points, the unit in which seeds scatter evenly; or Huber's on
log error (arXiv 2203.15556, appendix D), for points that scatter for other reasons too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from luma_cli.errors import NoAnswer
from luma_cli.scaling import nonnegative
from luma_cli.scaling.point import Point, distinct
from luma_cli.scaling.polish import LEAST_EXPONENT, MOST_EXPONENT, Loss, Polished, jacobian, polish
from luma_cli.scaling.projection import Data, first_guess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEAST_SIZES = LEAST_RESOLUTIONS = 3
_NUM_NODES = 24  # per exponent; the polish starts within 30% of the best pair
_NUM_EXPONENTS = 2


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted law. Its errors are in points of 100 - mIoU on the level named `reference`.

    floor: E. by_size, by_tokens: A and B at params_mean and tokens_mean, where N^-a and T^-b are 1; zero means that the
    points show no such term, its exponent then says nothing. levels: factor of each level against the reference.
    noise_percent: standard deviation of one point in percent of the mean error; noise_miou: in mIoU points.
    """

    floor: float
    by_size: float
    by_tokens: float
    a: float
    b: float
    params_mean: float
    tokens_mean: float
    reference: str
    levels: dict[str, float]
    noise_percent: float
    noise_miou: float

    def error(self, params: float, tokens: float, level: str = "") -> float:
        """100 - mIoU in percent of `params` and `tokens`, on the reference level or the named one."""
        by_size = self.by_size * (params / self.params_mean) ** -self.a
        by_tokens = self.by_tokens * (tokens / self.tokens_mean) ** -self.b
        return float(self.levels.get(level, 1.0) * (self.floor + by_size + by_tokens))

    def to_json(self) -> dict[str, Any]:
        """The constants, and what they are relative to."""
        return {
            "formula": "error = E + A (N/N0)^-a + B (T/T0)^-b, error = 100 - mIoU in percent",
            "E": self.floor,
            "A": self.by_size,
            "B": self.by_tokens,
            "a": self.a,
            "b": self.b,
            "N0": self.params_mean,
            "T0": self.tokens_mean,
            "reference_level": self.reference,
            "levels": self.levels,
            "noise_percent_of_error": self.noise_percent,
            "noise_miou": self.noise_miou,
        }


@dataclass(frozen=True, slots=True)
class Fit:
    """A law with what its bootstrap needs: the data as arrays, the state at the minimum, the loss that was used.

    log_error: [n].
    """

    law: Law
    points: tuple[Point, ...]
    data: Data
    log_error: Array
    polished: Polished
    loss: Loss

    def slopes(self) -> Array:
        """[n, 5] of log error by ln a, ln b, E, A, B at the minimum, levels taken away."""
        polished = self.polished
        every: Array = jacobian(self.data, polished.exponents, polished.projected, polished.weights)[0]
        return every

    @property
    def num_free(self) -> int:
        """Points less parameters that they determine; at least 1."""
        active = int((self.polished.projected.coefficients > 0).sum())
        return max(1, len(self.points) - active - _NUM_EXPONENTS - self.data.num_levels + 1)


def informative(points: Sequence[Point]) -> list[Point]:
    """Points that share their level with another one that differs in size or tokens; the rest says nothing here."""
    by_level: dict[str, set[tuple[float, float]]] = {}
    for point in points:
        by_level.setdefault(point.level, set()).add((point.params, point.tokens))
    return [point for point in points if len(by_level[point.level]) > 1]


def contrasts(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Sizes and token counts that are compared within some level: what the two exponents are read from."""
    by_level: dict[str, list[Point]] = {}
    for point in points:
        by_level.setdefault(point.level, []).append(point)
    sizes: list[float] = []
    tokens: list[float] = []
    for members in by_level.values():
        own_sizes = distinct([each.params for each in members])
        own_tokens = distinct([each.tokens for each in members])
        sizes += own_sizes if len(own_sizes) > 1 else []
        tokens += own_tokens if len(own_tokens) > 1 else []
    return distinct(sizes), distinct(tokens)


def missing(points: Sequence[Point]) -> str:
    """What keeps the points from being fitted, as `2 resolutions within a level, expected at least 3`; else empty."""
    sizes, tokens = contrasts(points)
    parts = [
        f"{len(found)} {name} within a level, expected at least {least}"
        for name, found, least in (
            ("sizes", sizes, LEAST_SIZES),
            ("resolutions", tokens, LEAST_RESOLUTIONS),
        )
        if len(found) < least
    ]
    levels = len({point.level for point in points})
    least = nonnegative.NUM_COLUMNS + _NUM_EXPONENTS + levels
    if not parts and len(points) < least:
        parts.append(f"{len(points)} results on {levels} levels, expected at least {least}")
    return "; ".join(parts)


def fit(points: Sequence[Point], huber: float | None = None) -> Fit:
    """The law through `points`, each level with a factor of its own. Deterministic.

    huber: residual in log error from which a point pulls with constant force; None for least squares. Raises NoAnswer
    with fewer than three sizes or resolutions compared within a level.
    """
    import numpy as np

    lack = missing(points)
    if lack:
        raise NoAnswer(f"no scaling law from these results: {lack}")
    points = sorted(points, key=lambda point: point.level)
    data, params_mean, tokens_mean = _data(points)
    log_error = np.log([point.error for point in points])[None]
    loss = Loss(np.ones(len(points)) if huber else np.exp(2 * (log_error[0] - log_error.mean())), huber)
    guess = first_guess(data, log_error)
    starts = start(data, log_error, guess, loss.precision[None])
    polished = polish(data, starts, log_error, guess, loss)
    law = _law(points, data, polished, params_mean, tokens_mean, log_error[0])
    fitted = Fit(law, tuple(points), data, log_error[0], polished, loss)
    return replace(fitted, law=_with_noise(fitted))


def _data(points: Sequence[Point]) -> tuple[Data, float, float]:
    import numpy as np

    log_params = np.log([point.params for point in points])
    log_tokens = np.log([point.tokens for point in points])
    starts = [at for at, point in enumerate(points) if at == 0 or point.level != points[at - 1].level]
    data = Data(log_params - log_params.mean(), log_tokens - log_tokens.mean(), np.array(starts))
    return data, float(np.exp(log_params.mean())), float(np.exp(log_tokens.mean()))


def start(data: Data, log_errors: Array, fitted: Array, weights: Array) -> Array:
    """The best node of the grid for each of R problems [R, n] that share a linearisation at `fitted` [1, n]: [R, 2].

    One set of Gram matrices serves all problems, so 500 of them cost little more than one.
    """
    import numpy as np

    ladder = np.geomspace(LEAST_EXPONENT, MOST_EXPONENT, _NUM_NODES)
    nodes = np.stack(np.meshgrid(ladder, ladder, indexing="ij"), axis=-1).reshape(-1, _NUM_EXPONENTS)
    relative = data.without_levels(data.columns(nodes) / fitted[..., None], weights)
    targets = data.without_levels((log_errors - np.log(fitted) + 1.0)[..., None], weights)[..., 0]
    weighted = (weights[..., None] * relative).swapaxes(-1, -2)
    moments = (weighted @ targets.T).swapaxes(-1, -2)
    _, gain = nonnegative.solve((weighted @ relative)[:, None], moments)
    best: Array = nodes[gain.argmax(0)]
    return best


def _law(
    points: Sequence[Point], data: Data, polished: Polished, params_mean: float, tokens_mean: float, log_error: Array
) -> Law:
    """The law on the level with most points; equal counts: the first by name."""
    import numpy as np

    names = [points[at].level for at in data.starts]
    reference = int(data.sizes.argmax())
    projected = polished.projected
    offsets = (log_error - np.log(projected.fitted[0]))[:, None]
    means = data.level_means(offsets, polished.weights[0])[:, 0]
    scale = float(np.exp(means[reference])) if data.num_levels > 1 else 1.0
    floor, by_size, by_tokens = (float(value) * scale for value in projected.coefficients[0])
    return Law(
        floor=floor,
        by_size=by_size,
        by_tokens=by_tokens,
        a=float(polished.exponents[0, 0]),
        b=float(polished.exponents[0, 1]),
        params_mean=params_mean,
        tokens_mean=tokens_mean,
        reference=names[reference],
        levels={name: float(np.exp(mean - means[reference])) for name, mean in zip(names, means, strict=True)},
        noise_percent=0.0,
        noise_miou=0.0,
    )


def _with_noise(fitted: Fit) -> Law:
    import numpy as np

    residuals, weights = fitted.polished.projected.residuals[0], fitted.polished.weights[0]
    sd = float(np.sqrt((weights * residuals**2).sum() / fitted.num_free))
    mean_error = float(np.exp(fitted.log_error.mean()))
    return replace(fitted.law, noise_percent=100 * sd, noise_miou=sd * mean_error)
