"""How sure the exponents are: a residual bootstrap, seeded, all refits side by side.

Residuals are divided by sqrt(1 - leverage) and centred (Davison and Hinkley 1997, section 6.2), because least squares
has already shrunk them; without it intervals of 9 to 16 runs are far too narrow, as in the published ones that
arXiv 2404.10102 corrects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from luma_cli.scaling.law import Fit, start
from luma_cli.scaling.optimal import Elasticity, Split, split
from luma_cli.scaling.polish import polish

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

NUM_REFITS = 500
# Where the first of them already spread this many times too widely, the rest is not run: nothing will be printed.
_NUM_FIRST, _HOPELESS = 100, 2.0
LEVEL = 0.90
# An exponent whose 90% interval is wider than this is not printed (recommend.md, section 2): 0.25 of N's 0.83 is the
# difference between "nearly all of it into size" and "half".
WIDEST = 0.25
_MOST_LEVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
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

    def to_json(self) -> dict[str, float | None]:
        """The interval, and the value where it may be quoted."""
        return {"value": self.value if self.tells else None, "low_90": self.low, "high_90": self.high}


@dataclass(frozen=True, slots=True)
class Exponents:
    """What the points say about the law's exponents and the compute-optimal split.

    size, tokens: n and t of N* ~ C^n and T* ~ C^t. ratio: a/b. draws: (n, t) of every refit.
    """

    a: Interval
    b: Interval
    ratio: Interval
    size: Interval
    tokens: Interval
    draws: tuple[Split, ...]

    @property
    def identified(self) -> bool:
        """Whether both exponents of the split can be printed as a result."""
        return self.size.tells and self.tokens.tells

    def to_json(self) -> dict[str, Any]:
        """Every interval, and whether they may be quoted."""
        return {
            "identified": self.identified,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "a_over_b": self.ratio.to_json(),
            "n": self.size.to_json(),
            "t": self.tokens.to_json(),
            "refits": len(self.draws),
        }


def bootstrap(fitted: Fit, elasticity: Elasticity, num_refits: int = NUM_REFITS, seed: int = 0) -> Exponents:
    """90% intervals of a, b, a/b, n and t from `num_refits` refits. The same seed gives the same numbers.

    Fewer refits, a fifth, where these show that n can not be told by far.
    """
    import numpy as np

    errors = resampled(fitted, num_refits, seed)
    exponents, coefficients = refits(fitted, errors[:_NUM_FIRST])
    first = _splits(exponents, coefficients, elasticity)
    if len(errors) > _NUM_FIRST and _width([each.size for each in first]) < _HOPELESS * WIDEST:
        more = refits(fitted, errors[_NUM_FIRST:])
        exponents, coefficients = np.vstack([exponents, more[0]]), np.vstack([coefficients, more[1]])
    splits = _splits(exponents, coefficients, elasticity)
    law = fitted.law
    own = split(law.a, law.b, elasticity, law.by_size > 0, law.by_tokens > 0)
    return Exponents(
        a=_interval(law.a, exponents[:, 0]),
        b=_interval(law.b, exponents[:, 1]),
        ratio=_interval(law.a / law.b, exponents[:, 0] / exponents[:, 1]),
        size=_interval(own.size, np.array([each.size for each in splits])),
        tokens=_interval(own.tokens, np.array([each.tokens for each in splits])),
        draws=splits,
    )


def resampled(fitted: Fit, num: int, seed: int) -> Array:
    """Log errors [num, n] as other runs of the same models would have given them."""
    import numpy as np

    generator = np.random.default_rng(seed)
    scaled = _modified_residuals(fitted)
    drawn = generator.choice(scaled, size=(num, len(scaled)))
    # A few residuals do not tell their own spread well: each refit has a spread of its own, as Student's t does.
    drawn = drawn * np.sqrt(fitted.num_free / generator.chisquare(fitted.num_free, size=(num, 1)))
    log_errors: Array = (
        fitted.log_error - fitted.polished.projected.residuals[0] + drawn / np.sqrt(fitted.loss.precision)
    )
    return log_errors


def refits(fitted: Fit, log_errors: Array) -> tuple[Array, Array]:
    """Exponents (a, b) [R, 2] and coefficients (E, A, B) [R, 3] of fits to log errors [R, n]."""
    import numpy as np

    base = fitted.polished.projected.fitted
    starts = start(fitted.data, log_errors, base, fitted.loss.precision[None])
    polished = polish(fitted.data, starts, log_errors, np.broadcast_to(base, log_errors.shape), fitted.loss)
    return polished.exponents, polished.projected.coefficients


def _splits(exponents: Array, coefficients: Array, elasticity: Elasticity) -> tuple[Split, ...]:
    return tuple(
        split(float(a), float(b), elasticity, bool(by_size > 0), bool(by_tokens > 0))
        for (a, b), (_, by_size, by_tokens) in zip(exponents, coefficients, strict=True)
    )


def _width(values: list[float]) -> float:
    import numpy as np

    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(high - low)


def _modified_residuals(fitted: Fit) -> Array:
    """Residuals of equal variance and mean zero, in the unit of the loss."""
    import numpy as np

    scale = np.sqrt(fitted.loss.precision)
    residuals = scale * fitted.polished.projected.residuals[0]
    every = scale[:, None] * np.hstack([fitted.slopes(), _one_hot(fitted)])
    basis, sizes, _ = np.linalg.svd(every, full_matrices=False)
    leverage = (basis[:, sizes > 1e-9 * sizes[0]] ** 2).sum(1)
    modified: Array = residuals / np.sqrt(1.0 - np.minimum(leverage, _MOST_LEVERAGE))
    modified -= modified.mean()
    return modified


def _one_hot(fitted: Fit) -> Array:
    """[n, levels], no column where there is one level: E, A and B hold it."""
    import numpy as np

    data = fitted.data
    if data.num_levels == 1:
        return np.zeros((len(fitted.points), 0))
    hot: Array = np.repeat(np.eye(data.num_levels), data.sizes, axis=0)
    return hot


def _interval(value: float, draws: Array) -> Interval:
    import numpy as np

    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(min(low, value)), float(max(high, value)))
