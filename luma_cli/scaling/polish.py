"""From a node of the grid to the minimum: Levenberg-Marquardt on the two exponents, E, A, B and levels projected out.

Many problems run side by side, each with its own damping. Shapes as in `projection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.scaling.projection import Data, Projected, project

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

# Exponents are looked for here; published scaling exponents of vision models lie between 0.05 and 1.5. Beyond the ends
# a term is a logarithm, or a step that no data of a few sizes can tell from none.
LEAST_EXPONENT, MOST_EXPONENT = 0.01, 5.0
_STEPS = 25
_WARM_ITERATIONS = 2
_SMALL_STEP = 1e-7
_SMALL_FALL = 1e-10
_LEAST_DAMPING, _MOST_DAMPING = 1e-9, 1e9


@dataclass(frozen=True, slots=True)
class Polished:
    """Exponents [K, 2], the linear part, weights [K, n] at the end, and the loss [K]."""

    exponents: Array
    projected: Projected
    weights: Array
    loss: Array


@dataclass(frozen=True, slots=True)
class Loss:
    """What is minimised, a function of residuals in log error.

    precision: weight of each point [n]; error squared makes it squares of mIoU points. huber: residual from which a
    point pulls with constant force, None for squares.
    """

    precision: Array
    huber: float | None = None

    def weights(self, residuals: Array) -> Array:
        """Weights [K, n] with which least squares has the same gradient."""
        import numpy as np

        if self.huber is None:
            return np.broadcast_to(self.precision, residuals.shape)
        return self.precision * np.minimum(1.0, self.huber / np.maximum(np.abs(residuals), 1e-300))

    def total(self, residuals: Array) -> Array:
        """Sum over points [K] of squared residuals, linear beyond `huber`."""
        import numpy as np

        size = np.abs(residuals)
        if self.huber is not None:
            size = np.sqrt(np.where(size <= self.huber, size**2, self.huber * (2 * size - self.huber)))
        total: Array = (self.precision * size**2).sum(-1)
        return total


def polish(data: Data, exponents: Array, log_error: Array, fitted: Array, loss: Loss) -> Polished:
    """The minimum that starts of exponents [K, 2] lead to, for errors [K, n] in logs."""
    import numpy as np

    logs = np.log(exponents)
    found = project(data, exponents, log_error, loss.weights(np.zeros_like(log_error)), fitted)
    least = loss.total(found.residuals)
    damping = np.full(len(logs), 1e-3)
    open_ = np.arange(len(logs))  # problems that still move
    for _ in range(_STEPS):
        now = found.rows(open_)
        weights = loss.weights(now.residuals)
        step = _step(data, logs[open_], now, weights, damping[open_])
        tried = np.clip(logs[open_] + step, np.log(LEAST_EXPONENT), np.log(MOST_EXPONENT))
        trial = project(data, np.exp(tried), log_error[open_], weights, now.fitted, _WARM_ITERATIONS)
        total = loss.total(trial.residuals)
        better = total < least[open_]
        moved = np.abs(tried - logs[open_]).max(-1) > _SMALL_STEP
        fallen = least[open_] - total > _SMALL_FALL * least[open_]
        taken = open_[better]
        logs[taken], least[taken] = tried[better], total[better]
        found.put(taken, trial.rows(np.flatnonzero(better)))
        damping[open_] = np.clip(damping[open_] * np.where(better, 0.2, 4.0), _LEAST_DAMPING, _MOST_DAMPING)
        open_ = open_[np.where(better, moved & fallen, moved & (damping[open_] < _MOST_DAMPING))]
        if not len(open_):
            break
    return Polished(np.exp(logs), found, loss.weights(found.residuals), least)


def jacobian(data: Data, exponents: Array, found: Projected, weights: Array) -> Array:
    """[K, n, 5]: log error by ln a, ln b, E, A, B, levels taken away; columns of coefficients at zero are zero."""
    import numpy as np

    columns = data.columns(exponents) / found.fitted[..., None]
    active = (found.coefficients > 0)[:, None, :]
    by_size = -exponents[:, :1] * data.log_params * columns[..., 1] * found.coefficients[:, 1:2]
    by_tokens = -exponents[:, 1:] * data.log_tokens * columns[..., 2] * found.coefficients[:, 2:3]
    every = np.concatenate([by_size[..., None], by_tokens[..., None], columns * active], axis=-1)
    return data.without_levels(every, weights)


def _step(data: Data, logs: Array, found: Projected, weights: Array, damping: Array) -> Array:
    """The damped Gauss-Newton step of (ln a, ln b) [K, 2]."""
    import numpy as np

    slopes = jacobian(data, np.exp(logs), found, weights)
    weighted = (weights[..., None] * slopes).swapaxes(-1, -2)
    normal, right = weighted @ slopes, weighted @ found.residuals[..., None]
    diagonal = np.einsum("kii->ki", normal)
    # Relative damping of the exponents alone: the linear part is solved exactly afterwards.
    relative = np.array([1.0, 1.0, 1e-9, 1e-9, 1e-9])
    floor = 1e-12 * diagonal.max(-1, keepdims=True) + 1e-300
    ridge = damping[:, None] * relative * diagonal + floor
    step = np.linalg.solve(normal + ridge[..., None] * np.eye(5), right)[:, :2, 0]
    return np.clip(step, -1.0, 1.0)
