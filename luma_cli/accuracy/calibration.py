"""How wide intervals must be: learned from rows that the fit did not see.

Log errors have heavier tails than a normal distribution, so the half-widths of the 50, 80 and 90 % intervals are
quantiles of |z| over left-out rows rather than 0.67, 1.28 and 1.64: per dataset and regime, and per kind of novelty.
Rows of one series, objective or head share most of their error there, so for these every label counts once, however
many rows it has. A few rows of a normal distribution are added, so that small samples stay near it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from luma_cli.accuracy.fit import Fit, leave_out
from luma_cli.accuracy.observations import noise_name
from luma_cli.accuracy.subject import Subject

if TYPE_CHECKING:
    from luma_cli.accuracy.observations import Vector

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
