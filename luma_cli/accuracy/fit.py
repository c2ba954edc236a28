"""The posterior of every effect given the evidence, its variance components, and the widths of intervals.

Everything is Gaussian in log error, so all of it is linear algebra on the covariance of the observations (Rasmussen and
Williams 2006, chapter 2; leave-one-group-out from one inverse as in section 5.4.2). The variance components of the
shipped evidence are `profiles/accuracy.toml`, where a fit of more evidence starts. It is written by

    python -m luma_cli.accuracy.fit profiles/accuracy.toml

Log errors have heavier tails than a normal distribution, so the half-widths of the 50, 80 and 90 % intervals are
quantiles of |z| over left-out rows, per dataset and regime and per kind of novelty. Where rows share most of their
error (one series, objective or head) every label counts once. A few rows of a normal distribution keep small samples
near it.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from luma_cli import files
from luma_cli.accuracy.effects import GROUPS, Observations, noise_name, observe
from luma_cli.accuracy.subjects import Subject
from luma_cli.evidence.evidence import Evidence, load_reference

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luma_cli.accuracy.effects import Matrix, Observations, Vector


# Before any evidence: noise of one run in log error, about 0.5 mIoU at 50 and 0.2 at 80.
USUAL_NOISE = 0.01
# Learned standard deviations may differ from their start by a factor of e per sd of this prior.
LOG_SD = 1.0
ALIKE = 2.0  # in log density
SENSITIVITIES = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5)


@dataclass(frozen=True, slots=True)
class Components:
    """Standard deviations in log error. effects: by group. noises: by `dataset, regime`. sensitivity: by dataset."""

    effects: Mapping[str, float]
    noises: Mapping[str, float]
    sensitivity: Mapping[str, float]

    def effect_sds(self, observations: Observations) -> Vector:
        """Standard deviation of every effect [p]."""
        import numpy as np

        sds = np.array([self.effects[name] for name in GROUPS])
        return sds[[column.group for column in observations.columns]]

    def noise_sds(self, observations: Observations) -> Vector:
        """Noise of every observation [n]."""
        import numpy as np

        levels = np.array([self.noise(name) for name in observations.noises])
        return levels[observations.noise_of] * observations.noise_factor

    def noise(self, name: str) -> float:
        """Noise of one `dataset, regime`; the largest known of that regime where nothing was learned."""
        if name in self.noises:
            return self.noises[name]
        regime = name.rpartition(", ")[2]
        return max((sd for other, sd in self.noises.items() if other.endswith(f", {regime}")), default=USUAL_NOISE)


def initial(datasets: Sequence[str] = ()) -> Components:
    """Components before learning."""
    return Components({name: group.sd for name, group in GROUPS.items()}, {}, dict.fromkeys(datasets, 1.0))


def load_components() -> Components:
    """The shipped ones."""
    table = files.read_toml(components_path())
    return Components({**_stated(), **table["effects"]}, table["noises"], table["sensitivity"])


def _stated() -> dict[str, float]:
    """What is stated rather than learned."""
    return {name: group.sd for name, group in GROUPS.items() if group.fixed}


def components_path() -> Path:
    """Where the shipped ones lie."""
    return files.root() / "profiles" / "accuracy.toml"


def covariance(observations: Observations, components: Components) -> Matrix:
    """Covariance of the observations [n, n] under the model, noise included."""
    import numpy as np

    num = len(observations)
    # Effects that many rows share go through one product of matrices, the rest block by block.
    shared = [index for index, column in enumerate(observations.columns) if 8 * len(column.rows) > num]
    sds = components.effect_sds(observations)
    dense = np.zeros((num, len(shared)))
    for place, index in enumerate(shared):
        column = observations.columns[index]
        dense[column.rows, place] = column.values * sds[index]
    matrix = dense @ dense.T
    for index in sorted(set(range(len(sds))).difference(shared)):
        rows, scaled = observations.columns[index].rows, observations.columns[index].values * sds[index]
        matrix[rows[:, None], rows] += np.outer(scaled, scaled)
    matrix[np.diag_indices(num)] += components.noise_sds(observations) ** 2
    return matrix


def learn(observations: Observations, start: Components, max_steps: int = 60) -> tuple[Components, float]:
    """Components of greatest marginal likelihood times a log-normal prior around `start`, and that log density.

    L-BFGS on the logs of the standard deviations, with exact gradients.
    """
    import numpy as np
    from scipy.optimize import minimize

    names = [name for name, group in GROUPS.items() if not group.fixed]
    prior = np.log([*(start.effects[name] for name in names), *(start.noise(name) for name in observations.noises)])

    def unpack(logs: Vector) -> Components:
        sds = np.exp(logs)
        return replace(
            start,
            effects={**start.effects, **dict(zip(names, sds.tolist(), strict=False))},
            noises=dict(zip(observations.noises, sds[len(names) :].tolist(), strict=True)),
        )

    def objective(logs: Vector) -> tuple[float, Vector]:
        value, effects, noises = _loss(observations, unpack(logs))
        gradient = np.concatenate([[effects[list(GROUPS).index(name)] for name in names], noises])
        away = (logs - prior) / LOG_SD
        return value + 0.5 * float(away @ away), gradient + away / LOG_SD

    found = minimize(objective, prior, jac=True, method="L-BFGS-B", options={"maxiter": max_steps})
    return unpack(found.x), -float(found.fun)


def _loss(observations: Observations, components: Components) -> tuple[float, Vector, Vector]:
    """Negative log marginal likelihood, and its gradient in the logs of effect and noise sds."""
    import numpy as np
    from scipy.linalg import cho_solve

    factor = np.linalg.cholesky(covariance(observations, components))
    inverse = cho_solve((factor, True), np.eye(len(observations)), check_finite=False)
    weighted = inverse @ observations.log_error
    value = 0.5 * float(observations.log_error @ weighted) + float(np.log(np.diag(factor)).sum())
    slope = inverse - np.outer(weighted, weighted)
    effects = np.zeros(len(GROUPS))
    for column, sd in zip(observations.columns, components.effect_sds(observations), strict=True):
        scaled = column.values * sd
        effects[column.group] += scaled @ slope[np.ix_(column.rows, column.rows)] @ scaled
    per_row = np.diag(slope) * components.noise_sds(observations) ** 2
    noises = np.bincount(observations.noise_of, per_row, len(observations.noises)).astype(np.float64)
    return value, effects, noises


def learn_all(rows: Sequence[Evidence], max_steps: int = 60) -> Components:
    """Components and the sensitivity of Cityscapes learned from `rows`, ADE20K being the unit.

    Of sensitivities that the rows do not tell apart, within ALIKE of the greatest log density, the least is taken.
    """
    found = []
    for sensitivity in SENSITIVITIES:
        start = replace(initial(), sensitivity={"ade20k": 1.0, "cityscapes": sensitivity})
        found.append(learn(observe(rows, start.sensitivity), start, max_steps))
    most = max(density for _, density in found)
    return next(learned for learned, density in found if density >= most - ALIKE)


def to_toml(components: Components, caption: str) -> str:
    """The shipped file's text."""
    lines = [f"# {caption}"]
    learned = {name: sd for name, sd in components.effects.items() if not GROUPS[name].fixed}
    tables = {"effects": learned, "noises": components.noises, "sensitivity": components.sensitivity}
    for title, table in tables.items():
        lines += ["", f"[{title}]", *(f'"{name}" = {value:.5g}' for name, value in table.items())]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Learns from the shipped evidence and writes the file named on the command line."""
    if len(arguments) != 2:
        print("usage: python -m luma_cli.accuracy.fit OUT.toml", file=sys.stderr)
        return 2
    learned = learn_all(load_reference())
    caption = "Standard deviations in log(100 - mIoU), learned from profiles/reference/segmentation_results.csv."
    files.write_text(Path(arguments[1]), to_toml(learned, caption))
    return 0


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


# What of a subject no row has shown: its architecture at least, its source (a table, or the user's own runs), its
# series, its objective, its head.
Novelty = Literal["architecture", "source", "series", "objective", "head"]
NOVELTIES: tuple[Novelty, ...] = get_args(Novelty)
LEVELS = (0.5, 0.8, 0.9)
NORMAL = (0.6745, 1.2816, 1.6449)
PSEUDO_ROWS = 20
# Novelties of which a label, not a row, is one observation; this many labels of a normal distribution are added.
BY_LABEL: frozenset[Novelty] = frozenset({"series", "objective", "head"})
PSEUDO_LABELS = 5


@dataclass(frozen=True, slots=True)
class Calibration:
    """Half-widths in sds for LEVELS, by `dataset, regime, novelty`."""

    widths: Mapping[str, tuple[float, float, float]]

    def width(self, subject: Subject, novelties: Sequence[Novelty]) -> tuple[float, float, float]:
        """The widest that applies; those of a normal distribution where nothing is known."""
        found = [
            self.widths[key]
            for novelty in ("architecture", *novelties)
            if (key := f"{noise_name(subject)}, {novelty}") in self.widths
        ]
        if not found:
            return NORMAL
        return max(found, key=lambda widths: widths[1])


def label_of(subject: Subject, novelty: Novelty) -> str:
    """Rows with one label are left out together."""
    return {
        "architecture": subject.architecture,
        "source": subject.source,
        "series": subject.lineage or subject.architecture,
        "objective": subject.objective,
        "head": subject.head,
    }[novelty]


def calibrate(fitted: Fit) -> Calibration:
    """Widths from leaving out architectures, sources, series, objectives and heads."""
    import numpy as np

    observed = fitted.observations
    names = [noise_name(subject) for subject in observed.subjects]
    widths = {}
    for novelty in NOVELTIES:
        labels = [label_of(subject, novelty) for subject in observed.subjects]
        means, sds = leave_out(fitted, labels)
        z = np.abs(observed.log_error - means) / sds
        for name in sorted(set(names)):
            rows = [index for index, each in enumerate(names) if each == name]
            counted = [labels[index] for index in rows] if novelty in BY_LABEL else None
            widths[f"{name}, {novelty}"] = quantiles(z[rows], counted)
    return Calibration(widths)


def quantiles(z: Vector, labels: Sequence[str] | None = None) -> tuple[float, float, float]:
    """Quantiles of |z| at LEVELS, some of a normal distribution added; with `labels`, each of these counts once."""
    import numpy as np

    counts = Counter(labels or ())
    weights = [1.0] * len(z) if labels is None else [1 / counts[label] for label in labels]
    added = PSEUDO_ROWS if labels is None else PSEUDO_LABELS
    places = (np.arange(PSEUDO_ROWS) + 0.5) / PSEUDO_ROWS
    values = np.concatenate([z, _normal_quantile(places)])
    shares = np.concatenate([weights, np.full(PSEUDO_ROWS, added / PSEUDO_ROWS)])
    order = np.argsort(values, kind="stable")
    below = np.cumsum(shares[order]) - shares[order] / 2
    low, middle, high = np.interp(LEVELS, below / shares.sum(), values[order])
    return float(low), float(middle), float(high)


def _normal_quantile(places: Vector) -> list[float]:
    """Quantile of |z| of a normal distribution."""
    from statistics import NormalDist  # with fractions and decimals, which what was learned can do without

    normal = NormalDist()
    return [normal.inv_cdf((1 + place) / 2) for place in places.tolist()]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
