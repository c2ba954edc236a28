"""Variable projection: the law's linear part (E, A, B) and levels in closed form, given the two exponents.

Gauss-Newton on log error: around a fitted error f0, log(Xb) is log f0 - 1 + Xb/f0, so (E, A, B) solve a non-negative
linear problem. Levels (a factor per head, protocol and pretraining) are additive in log error and are partialled out by
taking means within levels away; the grand mean is kept, it is what sets E, A and B.

Shapes: K problems side by side, n points, 3 columns (1, N^-a, T^-b).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.scaling import nonnegative

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_ITERATIONS = 5


@dataclass(frozen=True, slots=True)
class Data:
    """What does not change between problems: logs of N and T about their means [n], points sorted by level.

    starts: index of each level's first point [levels].
    """

    log_params: Array
    log_tokens: Array
    starts: NDArray[np.intp]

    @property
    def num_levels(self) -> int:
        """Levels, at least one."""
        return len(self.starts)

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Points of each level [levels]."""
        import numpy as np

        return np.diff(self.starts, append=len(self.log_params))

    def level_means(self, values: Array, weights: Array) -> Array:
        """Weighted means within levels [..., levels, m] of values [..., n, m]."""
        import numpy as np

        totals = np.add.reduceat(weights, self.starts, axis=-1)
        means: Array = np.add.reduceat(weights[..., None] * values, self.starts, axis=-2) / totals[..., None]
        return means

    def columns(self, exponents: Array) -> Array:
        """[K, n, 3] of exponents [K, 2]."""
        import numpy as np

        by_size = np.exp(-exponents[:, :1] * self.log_params)
        by_tokens = np.exp(-exponents[:, 1:] * self.log_tokens)
        return np.stack([np.ones_like(by_size), by_size, by_tokens], axis=-1)

    def without_levels(self, values: Array, weights: Array) -> Array:
        """[K, n, m] with weighted means within levels replaced by the grand mean; weights [K or 1, n]."""
        import numpy as np

        if self.num_levels == 1:
            return values
        grand = (weights[..., None] * values).sum(-2, keepdims=True) / weights.sum(-1)[..., None, None]
        shifts = grand - self.level_means(values, weights)
        without: Array = values + np.repeat(shifts, self.sizes, axis=-2)
        return without


@dataclass(frozen=True, slots=True)
class Projected:
    """The linear part of K problems: coefficients [K, 3], fitted error without level and residuals in log [K, n]."""

    coefficients: Array
    fitted: Array
    residuals: Array

    def rows(self, which: NDArray[np.intp]) -> Projected:
        """Some of the problems."""
        return Projected(self.coefficients[which], self.fitted[which], self.residuals[which])

    def put(self, which: NDArray[np.intp], other: Projected) -> None:
        """Replace some of the problems, in place."""
        self.coefficients[which], self.fitted[which] = other.coefficients, other.fitted
        self.residuals[which] = other.residuals


def project(
    data: Data, exponents: Array, log_error: Array, weights: Array, fitted: Array, iterations: int = _ITERATIONS
) -> Projected:
    """The best (E, A, B) and levels for each pair of exponents [K, 2], from a first guess of the fitted error [K, n].

    log_error, weights: [K or 1, n].
    """
    import numpy as np

    columns = data.columns(exponents)
    coefficients = np.zeros((len(exponents), nonnegative.NUM_COLUMNS))
    for _ in range(iterations):
        relative = data.without_levels(columns / fitted[..., None], weights)
        target = data.without_levels((log_error - np.log(fitted) + 1.0)[..., None], weights)
        weighted = weights[..., None] * relative
        gram = weighted.swapaxes(-1, -2) @ relative
        moment = (weighted.swapaxes(-1, -2) @ target)[..., 0]
        coefficients, _ = nonnegative.solve(gram, moment)
        # No column helps only where the data are not errors at all; a constant keeps the logarithm finite.
        coefficients[:, 0] = np.where(coefficients.sum(-1) > 0, coefficients[:, 0], 1.0)
        fitted = (columns @ coefficients[..., None])[..., 0]
    residuals = data.without_levels((log_error - np.log(fitted))[..., None], weights)[..., 0]
    return Projected(coefficients, fitted, residuals)


def first_guess(data: Data, log_error: Array) -> Array:
    """The errors themselves with levels taken away [K, n]: where the first linearisation stands."""
    import numpy as np

    ones = np.ones_like(log_error)
    return np.exp(data.without_levels(log_error[..., None], ones)[..., 0])
