"""Speed on a device from few measurements there: a Gaussian model of log time over reference times, in closed form.

    log time = reference + device scale + slopes . (size, intensity, side) + family + architecture
             + head + environment + weights . (how the shipped devices differ) + noise

Every term but the noise has the prior Normal(0, spread squared): few measurements move the shared scale, many also the
family and the architecture (partial pooling). The spreads of `SHIPPED` are moments of the differences between pairs of
shipped GPUs of one class; leaving one GPU out changes them by less than 0.01 (intensity without the RTX 3090: 0.03).
Shapes: n targets, m measurements, k shipped settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_SIDE = re.compile(r"(_\d{3,4})+$")
# Centres of the shipped table in GMACs, million activations and pixels, where slopes are zero.
_CENTRES = (4.5, 12.0, 245.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviations in log time.

    scale: of the device, practically unknown. size, intensity, side: per unit of log. family, stem, head, environment:
    of the effects shared by name. contrast: of the weights of the differences between shipped settings. noise: of one
    measurement.
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


# Between GPUs of one class (see above); those of head and environment are assumed, as the audit cannot check them.
SHIPPED = Spread()


@dataclass(frozen=True, slots=True)
class Priors:
    """The prior of n segmenters.

    base: reference log milliseconds. variance: of each one's own deviation. contrasts: (n, k) differences of shipped
    settings from the reference. slopes: (n, 3), see `slopes_of`. families, stems, heads, environments: equal names
    share an effect; an empty one shares nothing, and the present environment is empty.
    """

    base: Floats
    variance: Floats
    contrasts: Floats
    slopes: Floats
    families: Sequence[str]
    stems: Sequence[str]
    heads: Sequence[str]
    environments: Sequence[str]

    @property
    def names(self) -> tuple[Sequence[str], ...]:
        """Names by effect: family, stem, head, environment."""
        return self.families, self.stems, self.heads, self.environments

    def __getitem__(self, index: Sequence[int]) -> Priors:
        """The points at the indices."""
        at = np.asarray(index, dtype=int)
        numbers = (values[at] for values in (self.base, self.variance, self.contrasts, self.slopes))
        return Priors(*numbers, *([names[i] for i in at] for names in self.names))

    def __len__(self) -> int:
        """Number of segmenters."""
        return len(self.heads)


@dataclass(frozen=True, slots=True)
class LogNormal:
    """log value ~ Normal(mean, variance) of n segmenters."""

    mean: Floats
    variance: Floats


def slopes_of(macs: ArrayLike, activations: ArrayLike, side: ArrayLike) -> Floats:
    """(n, 3): log size (mean log of multiply-adds and activations), log intensity (their ratio), log side in pixels.

    Zero at the centre of the shipped table. activations: of timm's classifier; macs include the head's.
    """
    gmacs, mega_activations, centre = _CENTRES
    work = np.log(np.asarray(macs, dtype=float) / 1e9 / gmacs)
    outputs = np.log(np.asarray(activations, dtype=float) / 1e6 / mega_activations)
    return np.stack([(work + outputs) / 2, work - outputs, np.log(np.asarray(side, dtype=float) / centre)], axis=1)


@cache
def stem_of(architecture: str) -> str:
    """The architecture without its native size, which names the same network at all sizes.

    >>> stem_of("vit_base_patch16_384"), stem_of("convnext_base"), stem_of("swinv2_base_window12to24_192to384")
    ('vit_base_patch16', 'convnext_base', 'swinv2_base_window12to24_192to384')
    """
    return _SIDE.sub("", architecture)


def _same(one: Sequence[str], other: Sequence[str]) -> Floats:
    """(n, m): 1 where the names are equal and not empty, else 0."""
    codes = {name: number for number, name in enumerate(dict.fromkeys([*one, *other])) if name}
    left = np.array([codes.get(name, -1) for name in one])
    right = np.array([codes.get(name, -2) for name in other])
    return np.asarray(left[:, None] == right[None, :], dtype=float)


def _shared(spread: Spread) -> Iterator[float]:
    """Variances of the effects in the order of `Priors.names`."""
    return (sd**2 for sd in (spread.family, spread.stem, spread.head, spread.environment))


def covariance(one: Priors, other: Priors, spread: Spread) -> Floats:
    """(n, m): prior covariance of log time between segmenters, without each one's own deviation."""
    slopes = [spread.size**2, spread.intensity**2, spread.side**2]
    total: Floats = spread.scale**2 + (one.slopes * slopes) @ other.slopes.T
    for variance, mine, theirs in zip(_shared(spread), one.names, other.names, strict=True):
        total += variance * _same(mine, theirs)
    weight: float = spread.contrast**2 / max(1, one.contrasts.shape[1])
    return np.asarray(total + weight * one.contrasts @ other.contrasts.T)


def prior_variance(points: Priors, spread: Spread) -> Floats:
    """(n,): the diagonal of `covariance`, with each one's own deviation."""
    total: Floats = spread.scale**2 + points.slopes**2 @ [spread.size**2, spread.intensity**2, spread.side**2]
    for variance, names in zip(_shared(spread), points.names, strict=True):
        total += variance * np.array([bool(name) for name in names], dtype=float)
    weight = spread.contrast**2 / max(1, points.contrasts.shape[1])
    return np.asarray(total + weight * (points.contrasts**2).sum(1) + points.variance)


def gram_of(measured: Priors, spread: Spread) -> Floats:
    """(m, m): covariance of the measurements themselves."""
    return np.asarray(covariance(measured, measured, spread) + np.diag(measured.variance + spread.noise**2))


def log_evidence(measured: Priors, log_ms: Floats, spread: Spread) -> float:
    """Log marginal likelihood of the measurements, up to a constant; 0 for none."""
    if not len(measured):
        return 0.0
    gram, off = gram_of(measured, spread), log_ms - measured.base
    _, determinant = np.linalg.slogdet(gram)
    return float(-(off @ np.linalg.solve(gram, off) + determinant) / 2)


def posterior(targets: Priors, measured: Priors, log_ms: Floats, spread: Spread) -> LogNormal:
    """Log time of the targets given the measurements `log_ms` (m,); the prior where m is 0.

    Targets must not be among the measured: each measurement keeps its own deviation to itself.
    """
    variance = prior_variance(targets, spread)
    if not len(measured):
        return LogNormal(targets.base, variance)
    cross = covariance(targets, measured, spread)
    gain = np.linalg.solve(gram_of(measured, spread), cross.T).T
    mean = targets.base + gain @ (log_ms - measured.base)
    return LogNormal(mean, np.maximum(variance - (gain * cross).sum(1), 1e-8))
