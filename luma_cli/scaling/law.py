"""The scaling law err(N, T) = E + A N^-a + B T^-b of 100 - mIoU in parameters and image tokens, its fit and its split.

Levenberg-Marquardt on (ln a, ln b, E, A, B). Parabolas through iso-FLOP profiles would be biased when a and b differ
(arXiv 2603.22339), and a and b of segmentation differ about fivefold (arXiv 2607.00687). Loss: squares of mIoU points,
the unit in which seeds scatter evenly; or Huber's on log error (arXiv 2203.15556, appendix D), for points that scatter
for other reasons too.

The best size and token count grow as N* ~ C^n and T* ~ C^t. Minimising the error at fixed C(N, T) gives, with the local
elasticities p = dlnC/dlnN and q = dlnC/dlnT,

    n = b / (p b + q a),  t = a / (p b + q a),  p n + q t = 1.

p and q change with N and T: q of ViT-B with LUMA's head goes from 1.03 at 224 px to 1.36 at 1024 px. So n and t hold
near the model that they are given for.

Shapes: K problems side by side, n points sorted by level, 5 parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from luma_cli.errors import NoAnswer

Array = NDArray[np.float64]

# Image tokens of any backbone are counted in cells of this many pixels, whatever its own patch or stride.
TOKEN_PIXELS = 16
# Two sizes (or two token counts) are different when they are this far apart: 512 and 518 px are one resolution.
DIFFERENT = 1.15
LEAST_SIZES = LEAST_RESOLUTIONS = 3
# Published scaling exponents of vision models lie between 0.05 and 1.5. Beyond these ends a term is a logarithm, or a
# step that a few sizes cannot tell from none.
_LEAST_EXPONENT, _MOST_EXPONENT = 0.01, 5.0
_NUM_VALUES = 5
_LOW = np.array([math.log(_LEAST_EXPONENT)] * 2 + [0.0] * 3)
_HIGH = np.array([math.log(_MOST_EXPONENT)] * 2 + [math.inf] * 3)
_NUM_NODES = 8  # of a ladder of starts per exponent
_NUM_STARTS = 12  # nodes that are kept
_STEPS = 60
_LEAST_DAMPING, _MOST_DAMPING = 1e-9, 1e9


@dataclass(frozen=True, slots=True)
class Point:
    """One mIoU at one size and resolution.

    params: of the backbone alone. tokens: cells of 16 x 16 pixels in the crop. level: what must be equal for two errors
    to be compared raw (scale, pretraining, series); the law gives each level a factor of its own.
    """

    id: str
    name: str = field(metadata={"json": "backbone"})
    params: float
    tokens: float
    miou_percent: float
    level: str = ""
    own: bool = False

    JSON_ALSO: ClassVar = ("side",)

    @property
    def error(self) -> float:
        """100 - mIoU, percent."""
        return 100.0 - self.miou_percent

    @property
    def side(self) -> int:
        """Side in pixels of the square crop with as many tokens."""
        return round(TOKEN_PIXELS * math.sqrt(self.tokens))


def tokens_of(height: int, width: int) -> float:
    """Image tokens of a crop.

    >>> tokens_of(512, 512)
    1024.0
    """
    return height * width / TOKEN_PIXELS**2


def distinct(values: Sequence[float]) -> list[float]:
    """The smallest of each cluster of values, ascending; neighbours within 15% are one.

    >>> distinct([1024.0, 1048.0, 1600.0])
    [1024.0, 1600.0]
    """
    found: list[float] = []
    for value in sorted(values):
        if not found or value > DIFFERENT * found[-1]:
            found.append(value)
    return found


@dataclass(frozen=True, slots=True)
class Elasticity:
    """How C grows at one model: by a factor x^p when N grows by x, by x^q when T does."""

    p: float
    q: float


# C = k N T, which the paper's exponents agree with up to rounding.
PLAIN = Elasticity(1.0, 1.0)


@dataclass(frozen=True, slots=True)
class ComputeSplit:
    """Exponents of the best size and the best token count in compute."""

    size: float = field(metadata={"json": "n"})
    tokens: float = field(metadata={"json": "t"})


# N* ~ C^0.83 and T* ~ C^0.2: the abstract's 80/20 rule (arXiv 2607.00687). Rounded, so they add up to 1.03.
PAPER = ComputeSplit(0.83, 0.2)
PAPER_SOURCE = "arXiv 2607.00687"


def split(a: float, b: float, elasticity: Elasticity, has_size: bool = True, has_tokens: bool = True) -> ComputeSplit:
    """The split of a law. Where size (tokens) does not lower the error, everything goes to the other.

    >>> split(0.2, 1.0, PLAIN)
    ComputeSplit(size=0.8333333333333334, tokens=0.16666666666666669)
    """
    if not has_tokens:
        return ComputeSplit(1.0 / elasticity.p, 0.0)
    if not has_size:
        return ComputeSplit(0.0, 1.0 / elasticity.q)
    weight = elasticity.p * b + elasticity.q * a
    return ComputeSplit(b / weight, a / weight)


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted law. Its errors are in points of 100 - mIoU on the level named `reference`.

    floor: E. by_size, by_tokens: A and B at params_mean and tokens_mean, where N^-a and T^-b are 1; zero means that the
    points show no such term, and then its exponent means nothing. levels: factor of each level against the reference.
    noise_percent: standard deviation of one point in percent of the mean error; noise_miou: in mIoU points.
    """

    floor: float = field(metadata={"json": "E"})
    by_size: float = field(metadata={"json": "A"})
    by_tokens: float = field(metadata={"json": "B"})
    a: float
    b: float
    params_mean: float = field(metadata={"json": "N0"})
    tokens_mean: float = field(metadata={"json": "T0"})
    reference: str = field(default="", metadata={"json": "reference_level"})
    levels: Mapping[str, float] = field(default_factory=dict)
    noise_percent: float = field(default=0.0, metadata={"json": "noise_percent_of_error"})
    noise_miou: float = 0.0

    def error(self, params: float, tokens: float, level: str = "") -> float:
        """100 - mIoU in percent of `params` and `tokens`, on the reference level or the named one."""
        by_size = self.by_size * (params / self.params_mean) ** -self.a
        by_tokens = self.by_tokens * (tokens / self.tokens_mean) ** -self.b
        return float(self.levels.get(level, 1.0) * (self.floor + by_size + by_tokens))

    def split(self, elasticity: Elasticity) -> ComputeSplit:
        """How compute is best spent by this law where it grows with these elasticities."""
        return split(self.a, self.b, elasticity, self.by_size > 0, self.by_tokens > 0)


@dataclass(frozen=True, slots=True)
class Problem:
    """What a fit and its refits share. log_params, log_tokens: about their means [n].

    level_starts: index of each level's first point. precision: weight of each squared log error [n]. huber: log error
    from which a point pulls with constant force; None for squares.
    """

    log_params: Array
    log_tokens: Array
    level_starts: NDArray[np.intp]
    precision: Array
    huber: float | None

    @property
    def level_sizes(self) -> NDArray[np.intp]:
        """Points of each level."""
        return np.diff(self.level_starts, append=len(self.log_params))

    def weights(self, residuals: Array) -> Array:
        """Weights with which least squares has the gradient of the loss, shaped as the residuals [..., n]."""
        if self.huber is None:
            return np.broadcast_to(self.precision, residuals.shape)
        weights: Array = self.precision * np.minimum(1.0, self.huber / np.maximum(np.abs(residuals), 1e-300))
        return weights

    def loss(self, residuals: Array) -> Array:
        """Weighted sum of squares [...], linear beyond `huber`, of residuals [..., n]."""
        size = np.abs(residuals)
        within = size if self.huber is None else np.minimum(size, self.huber)
        total: Array = (within * (2 * size - within)) @ self.precision
        return total

    def without_levels(self, values: Array, weights: Array) -> Array:
        """Values [..., n] with the weighted mean of each level moved to the grand mean, which sets E, A and B."""
        if len(self.level_starts) == 1:
            return values
        totals = np.add.reduceat(weights, self.level_starts, axis=-1)
        sums = np.add.reduceat(weights * values, self.level_starts, axis=-1)
        shifts = sums.sum(-1, keepdims=True) / totals.sum(-1, keepdims=True) - sums / totals
        moved: Array = values + np.repeat(shifts, self.level_sizes, axis=-1)
        return moved

    def log_fitted(self, values: Array) -> tuple[Array, Array]:
        """Log error [K, n] by parameters [K, 5], levels aside, and its derivatives [K, 5, n]."""
        exponents = np.exp(values[:, :2, None])
        logs = np.stack([self.log_params, self.log_tokens])
        powers = np.exp(-exponents * logs)
        amounts = values[:, 3:, None] * powers
        fitted = values[:, 2, None] + amounts.sum(1)
        slopes = np.concatenate([-exponents * logs * amounts, np.ones_like(fitted)[:, None], powers], axis=1)
        return np.log(fitted), slopes / fitted[:, None]

    def descend(
        self, values: Array, log_errors: Array, steps: int = _STEPS, exponents: bool = True
    ) -> tuple[Array, Array]:
        """The minima [K, 5] that starts `values` lead to, for log errors [K, n], and their residuals [K, n].

        Each problem has a damping of its own and leaves when it stands still. exponents: whether they may move too.
        """
        values = values.copy()
        log_fitted, slopes = self.log_fitted(values)
        residuals = self.without_levels(log_errors - log_fitted, self.precision)
        least, damping, moving = self.loss(residuals), np.full(len(values), 1e-3), np.arange(len(values))
        for _ in range(steps):
            weights = self.weights(residuals[moving])
            step = self._step(values[moving], residuals[moving], slopes[moving], weights, damping[moving], exponents)
            # Far from the minimum the linearisation holds for a factor of e in an exponent at most.
            step[:, :2] = np.clip(step[:, :2], -1.0, 1.0)
            tried = np.clip(values[moving] + step, _LOW, _HIGH)
            with np.errstate(divide="ignore", invalid="ignore"):  # E, A and B all zero: an infinite loss, not taken
                tried_fitted, tried_slopes = self.log_fitted(tried)
                tried_residuals = self.without_levels(log_errors[moving] - tried_fitted, weights)
                loss = self.loss(tried_residuals)
            better = loss < least[moving]
            still = better & (least[moving] - loss <= 1e-10 * least[moving])
            taken = moving[better]
            values[taken], least[taken] = tried[better], loss[better]
            residuals[taken], slopes[taken] = tried_residuals[better], tried_slopes[better]
            damping[moving] = np.maximum(damping[moving] * np.where(better, 0.1, 5.0), _LEAST_DAMPING)
            moving = moving[~still & (damping[moving] < _MOST_DAMPING)]
            if not len(moving):
                break
        return values, residuals

    def _step(
        self, values: Array, residuals: Array, slopes: Array, weights: Array, damping: Array, exponents: bool
    ) -> Array:
        """The damped Gauss-Newton step [K, 5]; a parameter that presses against its bound stays there."""
        slopes = self.without_levels(slopes, weights[:, None])
        weighted = slopes * weights[:, None]
        downhill = (weighted @ residuals[..., None])[..., 0]
        held = ((values <= _LOW) & (downhill <= 0)) | ((values >= _HIGH) & (downhill >= 0))
        held[:, :2] |= not exponents
        normal = weighted @ slopes.swapaxes(-1, -2)
        normal[held[:, None, :] | held[:, :, None]] = 0.0
        diagonal = np.einsum("kii->ki", normal)
        # The small terms keep the matrix regular where a term of the law has vanished.
        ridge = damping[:, None] * diagonal + 1e-14 * diagonal.max(-1, keepdims=True) + held + 1e-300
        matrix = normal + ridge[..., None] * np.eye(_NUM_VALUES)
        step: Array = np.linalg.solve(matrix, np.where(held, 0.0, downhill)[..., None])[..., 0]
        return step


@dataclass(frozen=True, slots=True)
class FittedLaw:
    """A law with what its bootstrap needs.

    values: ln a, ln b, E, A, B, levels aside. starts: values worth starting a refit from [S, 5]. log_errors, residuals:
    of the points sorted by level [n]. num_free: points less parameters that they determine, at least 1.
    """

    law: Law
    problem: Problem
    values: Array
    starts: Array
    log_errors: Array
    residuals: Array
    num_free: int


def informative(points: Sequence[Point]) -> list[Point]:
    """Points that share their level with another one that differs in size or tokens; the others tell nothing here."""
    by_level: dict[str, set[tuple[float, float]]] = {}
    for point in points:
        by_level.setdefault(point.level, set()).add((point.params, point.tokens))
    return [point for point in points if len(by_level[point.level]) > 1]


def contrasts(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Sizes and token counts that are compared within some level: what the two exponents are read from."""
    by_level: dict[str, list[Point]] = {}
    for point in points:
        by_level.setdefault(point.level, []).append(point)
    sizes = [distinct([point.params for point in members]) for members in by_level.values()]
    tokens = [distinct([point.tokens for point in members]) for members in by_level.values()]
    compared = ([value for values in some if len(values) > 1 for value in values] for some in (sizes, tokens))
    found_sizes, found_tokens = map(distinct, compared)
    return found_sizes, found_tokens


def missing(points: Sequence[Point]) -> str:
    """What keeps the points from being fitted, as `2 resolutions within a level, expected at least 3`; else empty."""
    sizes, tokens = contrasts(points)
    parts = [
        f"{len(found)} {name} within a level, expected at least {least}"
        for name, found, least in (("sizes", sizes, LEAST_SIZES), ("resolutions", tokens, LEAST_RESOLUTIONS))
        if len(found) < least
    ]
    levels = len({point.level for point in points})
    if not parts and len(points) < _NUM_VALUES + levels:
        parts.append(f"{len(points)} results on {levels} levels, expected at least {_NUM_VALUES + levels}")
    return "; ".join(parts)


def fit(points: Sequence[Point], huber: float | None = None) -> FittedLaw:
    """The law through `points`, each level with a factor of its own. Deterministic.

    huber: residual in log error from which a point pulls with constant force; None for least squares. Raises NoAnswer
    with fewer than three sizes or resolutions compared within a level.
    """
    lack = missing(points)
    if lack:
        raise NoAnswer(f"no scaling law from these results: {lack}")
    points = sorted(points, key=lambda point: point.level)
    log_params, log_tokens, log_errors = (
        np.log([getattr(point, name) for point in points]) for name in ("params", "tokens", "error")
    )
    level_starts = [at for at, point in enumerate(points) if at == 0 or point.level != points[at - 1].level]
    precision = np.ones(len(points)) if huber else np.exp(2 * (log_errors - log_errors.mean()))
    problem = Problem(
        log_params - log_params.mean(), log_tokens - log_tokens.mean(), np.array(level_starts), precision, huber
    )
    nodes = _nodes(problem, log_errors)
    minima, misses = problem.descend(nodes, np.broadcast_to(log_errors, (len(nodes), len(points))))
    best = int(problem.loss(misses).argmin())
    values, residuals = minima[best], misses[best]
    num_free = max(1, len(points) - int((values[2:] > 0).sum()) - 2 - len(level_starts) + 1)
    law = _law(points, problem, values, log_errors, residuals, num_free)
    return FittedLaw(law, problem, values, np.vstack([values, nodes]), log_errors, residuals, num_free)


def _nodes(problem: Problem, log_errors: Array) -> Array:
    """The best nodes [S, 5] of a grid over the exponents, E, A and B fitted to each."""
    ladder = np.log(np.geomspace(_LEAST_EXPONENT, _MOST_EXPONENT, _NUM_NODES))
    exponents = np.stack(np.meshgrid(ladder, ladder), axis=-1).reshape(-1, 2)
    thirds = np.full((len(exponents), 3), np.exp(log_errors.mean()) / 3)
    every = np.broadcast_to(log_errors, (len(exponents), len(log_errors)))
    nodes, residuals = problem.descend(np.hstack([exponents, thirds]), every, steps=6, exponents=False)
    return nodes[np.argsort(problem.loss(residuals), kind="stable")[:_NUM_STARTS]]


def _law(
    points: Sequence[Point], problem: Problem, values: Array, log_errors: Array, residuals: Array, num_free: int
) -> Law:
    """The law on the level with most points; equal counts: the first by name."""
    weights = problem.weights(residuals)
    names = [points[at].level for at in problem.level_starts]
    offsets = weights * (log_errors - problem.log_fitted(values[None])[0][0])
    levels = np.add.reduceat(offsets, problem.level_starts) / np.add.reduceat(weights, problem.level_starts)
    reference = int(problem.level_sizes.argmax())
    scale = float(np.exp(levels[reference])) if len(names) > 1 else 1.0
    sd = float(np.sqrt((weights * residuals**2).sum() / num_free))
    log_a, log_b, floor, by_size, by_tokens = values.tolist()
    return Law(
        floor=scale * floor,
        by_size=scale * by_size,
        by_tokens=scale * by_tokens,
        a=math.exp(log_a),
        b=math.exp(log_b),
        params_mean=float(np.exp(np.mean(np.log([point.params for point in points])))),
        tokens_mean=float(np.exp(np.mean(np.log([point.tokens for point in points])))),
        reference=names[reference],
        levels={name: math.exp(level - levels[reference]) for name, level in zip(names, levels, strict=True)},
        noise_percent=100 * sd,
        noise_miou=sd * float(np.exp(log_errors.mean())),
    )
