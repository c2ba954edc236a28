"""A batch of runs without waiting for results: each chosen one is believed to come out as expected.

Kriging believer (Ginsbourger, Le Riche, Carraro 2010). What is then known about the others follows from the joint
posterior: their means stay, their variances shrink with their covariance to the chosen run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from luma_cli.advise.drawn_front import Floats

# Correlations of independent candidates have a standard deviation of 1 / sqrt(draws); below this many they are noise.
CHANCE_SDS = 3.0


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
        self._sd: Floats = self.sd
        # Correlations that so many draws show by chance alone.
        self._chance = CHANCE_SDS / np.sqrt(len(values))

    @property
    def sd(self) -> Floats:
        """One standard deviation of each candidate's expected mIoU, given what is believed."""
        return np.sqrt(np.maximum(self.variance, 0.0))

    def covariance(self, rows: ArrayLike, columns: ArrayLike) -> Floats:
        """Between candidates [R, J], given what is believed. rows, columns: indices."""
        one, other = np.asarray(rows, dtype=np.intp), np.asarray(columns, dtype=np.intp)
        found = self._centred[:, one].T @ self._centred[:, other] / (len(self._centred) - 1)
        found[np.abs(found) < self._chance * np.outer(self._sd[one], self._sd[other])] = 0.0
        for update in self._updates:
            found = found - np.outer(update[one], update[other])
        return np.asarray(found, dtype=np.float64)

    def shifts(self, runs: ArrayLike, columns: ArrayLike) -> Floats:
        """How far one run of each candidate moves the means of others [R, J], per standard deviation of its result."""
        total = self.variance[np.asarray(runs, dtype=np.intp)] + self._noise**2
        scale = np.where(total > 0, np.sqrt(np.where(total > 0, total, 1.0)), np.inf)
        return np.asarray(self.covariance(runs, columns) / scale[:, np.newaxis], dtype=np.float64)

    def believe(self, index: int) -> None:
        """Take the candidate's run as done, with the result that was expected."""
        update = self.shifts([index], np.arange(len(self.mean)))[0]
        self._updates.append(update)
        self.variance = np.maximum(self.variance - update**2, 0.0)
