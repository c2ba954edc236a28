"""90% intervals of the exponents: a residual bootstrap, seeded, all refits side by side.

Residuals are divided by sqrt(1 - leverage) and centred (Davison and Hinkley 1997, section 6.2), because least squares
has already shrunk them. Without that, intervals of 9 to 16 runs are far too narrow, as in the published ones that
arXiv 2404.10102 corrects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from luma_cli.scaling.law import Array, ComputeSplit, Elasticity, FittedLaw, split

NUM_REFITS = 500
# Where the first of them already spread this many times too widely, nothing will be printed and the rest is not run.
_NUM_FIRST, _HOPELESS = 100, 2.0
LEVEL = 0.90
# An exponent whose 90% interval is wider than this is not printed (recommend.md, section 2): 0.25 of N's 0.83 is the
# difference between "nearly all of it into size" and "half".
WIDEST = 0.25
_MOST_LEVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class ExponentInterval:
    """An estimate with its central 90% interval."""

    value: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """High less low."""
        return self.high - self.low

    @property
    def tells(self) -> bool:
        """Whether it is narrow enough to be printed as a result."""
        return self.width <= WIDEST

    def __json__(self) -> dict[str, Any]:
        """The interval, and the value where it may be quoted."""
        return {"value": self.value if self.tells else None, "low_90": self.low, "high_90": self.high}


@dataclass(frozen=True, slots=True)
class Exponents:
    """What the points say about the law's exponents and the compute-optimal split.

    size, tokens: n and t of N* ~ C^n and T* ~ C^t. ratio: a/b. draws: (n, t) of every refit.
    """

    a: ExponentInterval
    b: ExponentInterval
    ratio: ExponentInterval = field(metadata={"json": "a_over_b"})
    size: ExponentInterval = field(metadata={"json": "n"})
    tokens: ExponentInterval = field(metadata={"json": "t"})
    draws: tuple[ComputeSplit, ...] = field(metadata={"json": None})

    JSON_ALSO: ClassVar = ("identified", "refits")

    @property
    def identified(self) -> bool:
        """Whether both exponents of the split can be printed as a result."""
        return self.size.tells and self.tokens.tells

    @property
    def refits(self) -> int:
        """How many refits there were."""
        return len(self.draws)


def bootstrap(fitted: FittedLaw, elasticity: Elasticity, num_refits: int = NUM_REFITS, seed: int = 0) -> Exponents:
    """90% intervals of a, b, a/b, n and t from `num_refits` refits. The same seed gives the same numbers.

    Only the first hundred are run where these show that n is far from being told.
    """
    log_errors = _resampled(fitted, num_refits, seed)
    values = _refits(fitted, log_errors[:_NUM_FIRST])
    splits = _splits(values, elasticity)
    if num_refits > _NUM_FIRST and _interval(0.0, [each.size for each in splits]).width < _HOPELESS * WIDEST:
        more = _refits(fitted, log_errors[_NUM_FIRST:])
        values, splits = np.vstack([values, more]), [*splits, *_splits(more, elasticity)]
    a, b = np.exp(values[:, :2]).T
    law = fitted.law
    own = law.split(elasticity)
    return Exponents(
        a=_interval(law.a, a),
        b=_interval(law.b, b),
        ratio=_interval(law.a / law.b, a / b),
        size=_interval(own.size, [each.size for each in splits]),
        tokens=_interval(own.tokens, [each.tokens for each in splits]),
        draws=tuple(splits),
    )


def _resampled(fitted: FittedLaw, num: int, seed: int) -> Array:
    """Log errors [num, n] as other runs of the same models would have given them."""
    generator = np.random.default_rng(seed)
    scaled = _modified_residuals(fitted)
    drawn = generator.choice(scaled, size=(num, len(scaled)))
    # A few residuals do not tell their own spread well: each refit has a spread of its own, as Student's t does.
    drawn *= np.sqrt(fitted.num_free / generator.chisquare(fitted.num_free, size=(num, 1)))
    log_errors: Array = fitted.log_errors - fitted.residuals + drawn / np.sqrt(fitted.problem.precision)
    return log_errors


def _modified_residuals(fitted: FittedLaw) -> Array:
    """Residuals of equal variance and mean zero, in the unit of the loss."""
    problem = fitted.problem
    scale = np.sqrt(problem.precision)
    slopes = problem.log_fitted(fitted.values[None])[1][0]
    slopes[2:][fitted.values[2:] <= 0] = 0.0  # what stays at zero adapts to no residual
    slopes = problem.without_levels(slopes, problem.weights(fitted.residuals))
    # One column per level, none where there is one level: E, A and B hold it.
    num_levels = len(problem.level_starts)
    one_hot = np.repeat(np.eye(num_levels), problem.level_sizes, axis=0)[:, : num_levels if num_levels > 1 else 0]
    basis, sizes, _ = np.linalg.svd(scale[:, None] * np.hstack([slopes.T, one_hot]), full_matrices=False)
    leverage = (basis[:, sizes > 1e-9 * sizes[0]] ** 2).sum(1)
    modified = scale * fitted.residuals / np.sqrt(1.0 - np.minimum(leverage, _MOST_LEVERAGE))
    centred: Array = modified - modified.mean()
    return centred


def _refits(fitted: FittedLaw, log_errors: Array) -> Array:
    """Parameters [R, 5] of fits to log errors [R, n], each from the best of the starts of the fit."""
    problem = fitted.problem
    misses = problem.without_levels(log_errors[:, None] - problem.log_fitted(fitted.starts)[0], problem.precision)
    return problem.descend(fitted.starts[problem.loss(misses).argmin(1)], log_errors)[0]


def _splits(values: Array, elasticity: Elasticity) -> list[ComputeSplit]:
    return [
        split(a, b, elasticity, by_size > 0, by_tokens > 0)
        for (a, b), (by_size, by_tokens) in zip(np.exp(values[:, :2]).tolist(), values[:, 3:].tolist(), strict=True)
    ]


def _interval(value: float, draws: Sequence[float] | Array) -> ExponentInterval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return ExponentInterval(value, float(min(low, value)), float(max(high, value)))
