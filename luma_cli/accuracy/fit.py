"""The model conditioned on evidence: posterior of every effect, and predictions for rows it did not see.

Everything is Gaussian in log error, so all of it is linear algebra on the covariance of the observations (Rasmussen and
Williams 2006, chapter 2; leave-one-group-out from one inverse as in section 5.4.2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from luma_cli.accuracy.components import Components, covariance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luma_cli.accuracy.observations import Matrix, Observations, Vector

NUM_DRAWS = 2000

# A row this many sds from what all others say is a slip, a fraction among percentages or a training that collapsed;
# shipped rows are within 6.3.
SLIP_SDS = 7.0
_AS_FAR = 0.9  # two rows that contradict each other are equally far from the other
_MOST_ROUNDS = 50


@dataclass(frozen=True)
class Fit:
    """inverse: of the observations' covariance [n, n]. weighted: inverse times log errors [n]."""

    observations: Observations
    components: Components
    inverse: Matrix
    weighted: Vector

    def effects(self) -> Vector:
        """Posterior mean of every effect [p], about the mean of its prior."""
        import numpy as np

        sds = self.components.effect_sds(self.observations)
        sums = [column.values @ self.weighted[column.rows] for column in self.observations.columns]
        return np.array(sums) * sds**2

    def draws(self, num_draws: int = NUM_DRAWS, seed: int = 0) -> NDArray[np.float32]:
        """Joint posterior draws of the effects [num_draws, p] about the means of their priors.

        Draws of the prior are corrected by what the observations say about them (Matheron's rule).
        """
        import numpy as np

        observed, sds = self.observations, self.components.effect_sds(self.observations)
        generator = np.random.default_rng(seed)
        effects = generator.standard_normal((len(observed.keys), num_draws), dtype=np.float32)
        effects *= sds.astype(np.float32)[:, None]
        gap = generator.standard_normal((len(observed), num_draws), dtype=np.float32)
        gap *= -self.components.noise_sds(observed).astype(np.float32)[:, None]
        for row, (numbers, values) in enumerate(observed.terms):
            gap[row] -= values.astype(np.float32) @ effects[numbers]
        # In double precision: the levels that all rows share cancel here, and single precision would not survive it.
        pull = self.inverse @ (gap + observed.log_error[:, None])
        for index, column in enumerate(observed.columns):
            effects[index] += sds[index] ** 2 * (column.values @ pull[column.rows])
        return effects.T


def fit(observations: Observations, components: Components) -> Fit:
    """Conditions the model on the observations."""
    import numpy as np

    if not len(observations):
        return Fit(observations, components, np.zeros((0, 0)), np.zeros(0))
    inverse = np.linalg.inv(covariance(observations, components))
    inverse = (inverse + inverse.T) / 2
    return Fit(observations, components, inverse, inverse @ observations.log_error)


def without_slips(fitted: Fit) -> Fit:
    """The fit with rows beyond SLIP_SDS counted as noisy as they are far off, the farthest first.

    The inverse is updated in place of a new fit (Sherman-Morrison), because the farthest row makes its neighbours look
    far off too.
    """
    import numpy as np

    inverse, weighted = fitted.inverse.copy(), fitted.weighted
    more = np.zeros(len(weighted))
    for _ in range(_MOST_ROUNDS):
        precision = np.diag(inverse).copy()
        z = np.abs(weighted) / np.sqrt(precision)
        if not (z > SLIP_SDS).any():
            break
        added = np.where(z > _AS_FAR * z.max(), (weighted / precision) ** 2 - 1 / precision, 0.0)
        for row in np.flatnonzero(added).tolist():
            inverse -= np.outer(inverse[row], inverse[row]) * (added[row] / (1 + added[row] * inverse[row, row]))
        more += added
        weighted = inverse @ fitted.observations.log_error
    if not more.any():
        return fitted
    usual = fitted.components.noise_sds(fitted.observations)
    factor = fitted.observations.noise_factor * np.sqrt(1 + more / usual**2)
    return Fit(replace(fitted.observations, noise_factor=factor), fitted.components, inverse, weighted)


def leave_out(fitted: Fit, labels: Sequence[str]) -> tuple[Vector, Vector]:
    """Mean and sd of each log error [n], predicted from all rows whose label differs; noise of a run included."""
    import numpy as np

    observed = fitted.observations
    groups: dict[str, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        groups[label].append(index)
    means, sds = np.empty(len(observed)), np.empty(len(observed))
    for rows in groups.values():
        block = np.linalg.inv(fitted.inverse[np.ix_(rows, rows)])
        means[rows] = observed.log_error[rows] - block @ fitted.weighted[rows]
        sds[rows] = np.sqrt(np.diag(block))
    return means, sds
