"""Speed on a device from few measurements there: a Gaussian model of log time over reference times, in closed form.

    log time = reference + device scale + slopes . (size, intensity, side) + family + architecture
             + head + environment + weights . (how the shipped devices differ) + noise

Every term but the noise is Normal(0, spread squared) before anything was measured, so few measurements move the shared
scale and many also the family and the architecture (partial pooling). The spreads of `SHIPPED` are moments of the
differences between pairs of shipped GPUs of one class; leaving one GPU out changes them by less than 0.01, but for
the intensity without the RTX 3090 (0.03).
Shapes: n targets, m measurements, k shipped settings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


_SIDE = re.compile(r"(_\d{3,4})+$")
# Centres of the shipped table in GMACs, million activations and pixels: slopes turn about them.
_CENTRES = (4.5, 12.0, 245.0)


@dataclass(frozen=True, slots=True)
class Features:
    """Of n segmenters. macs, activations: counts of timm's classifier, to which the head adds multiply-adds. side:
    pixels. families, stems: names by which effects are shared; segmenters with an empty one share nothing.
    """

    macs: Floats
    activations: Floats
    side: Floats
    families: Sequence[str]
    stems: Sequence[str]

    def slopes(self) -> Floats:
        """(n, 3): log size (mean of the logs of multiply-adds and activations), log intensity (their ratio), log side;
        zero at the centre of the shipped table.
        """
        import numpy as np

        gmacs, activations, side = _CENTRES
        macs, outputs = np.log(self.macs / 1e9 / gmacs), np.log(self.activations / 1e6 / activations)
        return np.stack([(macs + outputs) / 2, macs - outputs, np.log(self.side / side)], axis=1)

    def __getitem__(self, index: Sequence[int]) -> Features:
        """Those at the indices."""
        import numpy as np

        at = np.asarray(index, dtype=int)
        families, stems = [self.families[i] for i in at], [self.stems[i] for i in at]
        return Features(self.macs[at], self.activations[at], self.side[at], families, stems)

    def __len__(self) -> int:
        """How many."""
        return len(self.stems)


@cache
def stem_of(architecture: str) -> str:
    """The architecture without the size it was made for: the same network, counted anew at each size.

    >>> stem_of("vit_base_patch16_384"), stem_of("convnext_base"), stem_of("swinv2_base_window12to24_192to384")
    ('vit_base_patch16', 'convnext_base', 'swinv2_base_window12to24_192to384')
    """
    return _SIDE.sub("", architecture)


def same(one: Sequence[str], other: Sequence[str]) -> Floats:
    """(n, m): 1 where the names are equal and not empty, else 0."""
    import numpy as np

    codes = {name: number for number, name in enumerate(dict.fromkeys([*one, *other])) if name}
    left = np.array([codes.get(name, -1) for name in one])
    right = np.array([codes.get(name, -2) for name in other])
    equal: Floats = (left[:, None] == right[None, :]).astype(float)
    return equal


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations in log time.

    scale: of the device, as good as unknown. size, intensity, side: per unit of log. family, stem: of effects shared by
    them. contrast: of the weight of each direction in which shipped settings differ. head: of all segmenters with one
    head. environment: of all rows of an older one. noise: of one measurement.
    """

    scale: float = 100.0
    size: float = 0.02
    intensity: float = 0.065
    side: float = 0.025
    family: float = 0.08
    stem: float = 0.05
    contrast: float = 0.5
    head: float = 0.15
    environment: float = 0.1
    noise: float = 0.02


# Between GPUs of one class (see above; the head's and the environment's are assumptions that the audit cannot check).
SHIPPED = Spread()


@dataclass(frozen=True, slots=True)
class Points:
    """What the model knows of n segmenters before any measurement. base: reference log milliseconds. variance: of what
    each one alone adds to it. contrasts: (n, k) by how much each shipped setting differs from the reference. heads,
    environments: names; an empty environment is the present one, which has no effect.
    """

    features: Features
    base: Floats
    variance: Floats
    contrasts: Floats
    heads: Sequence[str]
    environments: Sequence[str]

    def __getitem__(self, index: Sequence[int]) -> Points:
        """Those at the indices."""
        import numpy as np

        at = np.asarray(index, dtype=int)
        heads, environments = [self.heads[i] for i in at], [self.environments[i] for i in at]
        return Points(self.features[index], self.base[at], self.variance[at], self.contrasts[at], heads, environments)

    def __len__(self) -> int:
        """How many."""
        return len(self.heads)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """log value ~ Normal(mean, variance) of n segmenters."""

    mean: Floats
    variance: Floats


def covariance(one: Points, other: Points, spread: Spread) -> Floats:
    """(n, m): prior covariance of log time between segmenters, without what each one adds alone."""
    left, right = one.features.slopes(), other.features.slopes()
    slopes = [spread.size**2, spread.intensity**2, spread.side**2]
    shared = spread.scale**2 + (left * slopes) @ right.T
    shared += spread.family**2 * same(one.features.families, other.features.families)
    shared += spread.stem**2 * same(one.features.stems, other.features.stems)
    shared += spread.head**2 * same(one.heads, other.heads)
    shared += spread.environment**2 * same(one.environments, other.environments)
    weight: float = spread.contrast**2 / max(1, one.contrasts.shape[1])
    total: Floats = shared + weight * one.contrasts @ other.contrasts.T
    return total


def prior_variance(points: Points, spread: Spread) -> Floats:
    """(n,): the diagonal of `covariance` with what each one adds alone."""
    slopes = points.features.slopes() ** 2 @ [spread.size**2, spread.intensity**2, spread.side**2]
    named = (
        spread.family**2 * _has(points.features.families)
        + spread.stem**2 * _has(points.features.stems)
        + spread.head**2 * _has(points.heads)
        + spread.environment**2 * _has(points.environments)
    )
    weight = spread.contrast**2 / max(1, points.contrasts.shape[1])
    total: Floats = spread.scale**2 + slopes + named + weight * (points.contrasts**2).sum(1) + points.variance
    return total


def _has(names: Sequence[str]) -> Floats:
    import numpy as np

    return np.array([bool(name) for name in names], dtype=float)


def log_evidence(measured: Points, log_ms: Floats, spread: Spread) -> float:
    """Log density of the measurements before they were made; 0 for none."""
    import numpy as np

    if not len(measured):
        return 0.0
    gram = covariance(measured, measured, spread) + np.diag(measured.variance + spread.noise**2)
    off = log_ms - measured.base
    _, determinant = np.linalg.slogdet(gram)
    return float(-(off @ np.linalg.solve(gram, off) + determinant) / 2)


def posterior(targets: Points, measured: Points, log_ms: Floats, spread: Spread) -> LogNormal:
    """Log time of the targets given the measurements `log_ms` (m,); the prior where m is 0.

    What each measurement adds alone stays with it: a target that was itself measured is not meant to be asked here.
    """
    import numpy as np

    variance = prior_variance(targets, spread)
    if not len(measured):
        return LogNormal(targets.base, variance)
    gram = covariance(measured, measured, spread) + np.diag(measured.variance + spread.noise**2)
    cross = covariance(targets, measured, spread)
    gain = np.linalg.solve(gram, cross.T).T
    mean = targets.base + gain @ (log_ms - measured.base)
    return LogNormal(mean, np.maximum(variance - (gain * cross).sum(1), 1e-8))
