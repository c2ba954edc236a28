"""A batch of runs without waiting for results: each chosen one is believed to come out as expected.

Kriging believer (Ginsbourger, Le Riche, Carraro 2010). What is then known about the others follows from the joint
posterior: their means stay, their variances shrink with their covariance to the chosen run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from luma_cli.advise.drawn_front import Floats


class Believer:
    """Means and variances of C candidates from joint draws [S, C], updated for each run that is believed."""

    def __init__(self, draws: ArrayLike, noise_sd: float) -> None:
        """noise_sd: of one run's mIoU around its expectation (seed noise), in points, zero or more."""
        values = np.asarray(draws, dtype=np.float64)
        if values.ndim != 2 or len(values) < 2:
            raise ValueError(f"draws have shape {values.shape}, expected [S, C] with two draws or more")
        self.mean: Floats = values.mean(axis=0)
        self._centred: Floats = values - self.mean
        self._noise = noise_sd
        self._updates: list[Floats] = []
        self.variance: Floats = np.asarray((self._centred**2).sum(axis=0) / (len(values) - 1), dtype=np.float64)

    @property
    def sd(self) -> Floats:
        """One standard deviation of each candidate's expected mIoU, given what is believed."""
        return np.sqrt(np.maximum(self.variance, 0.0))

    def covariance(self, index: int) -> Floats:
        """Of the candidate with all others [C], given what is believed."""
        raw = self._centred.T @ self._centred[:, index] / (len(self._centred) - 1)
        for update in self._updates:
            raw = raw - update * update[index]
        return np.asarray(raw, dtype=np.float64)

    def shift(self, index: int) -> Floats:
        """How far one run of the candidate moves every mean [C], per standard deviation of its surprise."""
        total = self.variance[index] + self._noise**2
        return np.asarray(self.covariance(index) / np.sqrt(total) if total > 0 else np.zeros_like(self.mean))

    def believe(self, index: int) -> None:
        """Take the candidate's run as done, with the result that was expected."""
        update = self.shift(index)
        self._updates.append(update)
        self.variance = np.maximum(self.variance - update**2, 0.0)
