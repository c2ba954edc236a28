"""Correlation within groups: how two numbers move together once the level of each group is taken out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from luma_cli.findings.finding import Interval
from luma_cli.findings.resample import cluster_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luma_cli.findings.resample import Numbers

# A residual beyond this many robust standard deviations is named; of 100 Gaussian ones 1 or 2 are.
OUTLIER = 2.5
_MAD_TO_SD = 1.4826


@dataclass(frozen=True, slots=True)
class Sample:
    """Two numbers of one thing: its name, group and cluster, and a third number to hold fixed (None if not known)."""

    name: str
    group: Hashable
    cluster: Hashable
    x: float
    y: float
    held: float | None = None


def pearson(samples: Sequence[Sample]) -> Interval | None:
    """Pooled within-group Pearson r of x and y, clusters resampled; group means are taken anew in every draw."""
    import numpy as np

    x, y, groups = _columns(samples)

    def statistic(weights: Numbers) -> Numbers:
        dx, dy = (_centred(values, groups, weights) for values in (x, y))
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Numbers = (weights * dx * dy).sum(1) / np.sqrt(
                (weights * dx * dx).sum(1) * (weights * dy * dy).sum(1)
            )
        return found

    return cluster_interval([sample.cluster for sample in samples], statistic)


def spearman(samples: Sequence[Sample]) -> Interval | None:
    """Pearson r of the ranks of the deviations from the group means."""
    return pearson(_ranked(samples))


def partial_pearson(samples: Sequence[Sample]) -> Interval | None:
    """Pearson r of what `held` does not explain of x and y, within groups; samples without it are left out."""
    import numpy as np

    known = [sample for sample in samples if sample.held is not None]
    if not known:
        return None
    x, y, groups = _columns(known)
    held = np.array([sample.held for sample in known], dtype=float)
    alone = np.ones((1, len(known)))
    dx, dy, dh = (_centred(values, groups, alone)[0] for values in (x, y, held))
    spread = float(dh @ dh)
    if spread == 0:
        return None
    rest = ((d - dh * float(d @ dh) / spread) for d in (dx, dy))
    return pearson([_replaced(sample, a, b) for sample, a, b in zip(known, *rest, strict=True)])


def outliers(samples: Sequence[Sample]) -> list[tuple[str, float]]:
    """Names whose mean y is far from the within-group line, with the distance in units of y, largest first."""
    import numpy as np

    x, y, groups = _columns(samples)
    alone = np.ones((1, len(samples)))
    dx, dy = _centred(x, groups, alone)[0], _centred(y, groups, alone)[0]
    spread = float(dx @ dx)
    if spread == 0:
        return []
    residual = dy - dx * float(dx @ dy) / spread
    scale = _MAD_TO_SD * float(np.median(np.abs(residual)))
    names = dict.fromkeys(sample.name for sample in samples)
    means = {
        name: float(np.mean([r for s, r in zip(samples, residual, strict=True) if s.name == name])) for name in names
    }
    far = [(name, mean) for name, mean in means.items() if abs(mean) > OUTLIER * scale > 0]
    return sorted(far, key=lambda item: (-abs(item[1]), item[0]))


def freedom(samples: Sequence[Sample]) -> int:
    """Samples minus groups: what is left to correlate."""
    return len(samples) - len({sample.group for sample in samples})


def _columns(samples: Sequence[Sample]) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """x, y and membership [samples, groups]."""
    import numpy as np

    names = {group: at for at, group in enumerate(dict.fromkeys(sample.group for sample in samples))}
    codes = np.array([names[sample.group] for sample in samples], dtype=int)
    return (
        np.array([sample.x for sample in samples]),
        np.array([sample.y for sample in samples]),
        codes[:, None] == np.arange(len(names)),
    )


def _centred(values: Numbers, groups: NDArray[np.bool_], weights: Numbers) -> Numbers:
    """Values minus their group's weighted mean, [draws, samples]; a group that was not drawn does not matter."""
    import numpy as np

    member = groups.astype(float)
    total = weights @ member
    means = (weights * values) @ member / np.where(total > 0, total, 1)
    found: Numbers = values - means @ member.T
    return found


def _ranked(samples: Sequence[Sample]) -> list[Sample]:
    import numpy as np

    x, y, groups = _columns(samples)
    alone = np.ones((1, len(samples)))
    ranks = (_ranks(_centred(values, groups, alone)[0]) for values in (x, y))
    return [_replaced(sample, a, b) for sample, a, b in zip(samples, *ranks, strict=True)]


def _ranks(values: Numbers) -> Numbers:
    """Ranks from 1, ties sharing their mean; differences below 1e-9 are rounding."""
    import numpy as np

    _, at, counts = np.unique(np.round(values, 9), return_inverse=True, return_counts=True)
    found: Numbers = (np.cumsum(counts) - (counts - 1) / 2)[at]
    return found


def _replaced(sample: Sample, x: float, y: float) -> Sample:
    return Sample(sample.name, sample.group, sample.cluster, float(x), float(y), sample.held)
