"""How large each group of effects is: variance components, learned from segmentation rows and shipped.

`profiles/accuracy.toml` holds what the shipped evidence says; a fit of more evidence starts there. It is written by

    python -m luma_cli.accuracy.components profiles/accuracy.toml
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli import files
from luma_cli.accuracy.design import GROUPS
from luma_cli.accuracy.observations import Observations, observe
from luma_cli.evidence.evidence import Evidence, load_reference

if TYPE_CHECKING:
    from luma_cli.accuracy.observations import Matrix, Vector

# Before any evidence: noise of one run in log error, about 0.5 mIoU at 50 and 0.2 at 80.
USUAL_NOISE = 0.01
# Learned standard deviations may differ from their start by a factor of e per sd of this prior.
LOG_SD = 1.0
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
    """Components and the sensitivity of Cityscapes learned from `rows`, ADE20K being the unit."""
    best: tuple[float, Components] | None = None
    for sensitivity in SENSITIVITIES:
        start = replace(initial(), sensitivity={"ade20k": 1.0, "cityscapes": sensitivity})
        learned, density = learn(observe(rows, start.sensitivity), start, max_steps)
        best = max(best or (density, learned), (density, learned), key=lambda each: each[0])
    assert best is not None
    return best[1]


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
        print("usage: python -m luma_cli.accuracy.components OUT.toml", file=sys.stderr)
        return 2
    learned = learn_all(load_reference())
    caption = "Standard deviations in log(100 - mIoU), learned from profiles/reference/segmentation_results.csv."
    files.write_text(Path(arguments[1]), to_toml(learned, caption))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
