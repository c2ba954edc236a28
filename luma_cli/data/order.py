"""Which samples an optimiser step takes, known from its number alone: so a run can be resumed at any step. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from luma_cli.errors import UsageError
from luma_cli.seeds import ORDER, seed_of


@dataclass(frozen=True, slots=True)
class Step:
    """Samples of one optimiser step: of all ranks together, and of this rank; none of them occurs twice."""

    number: int
    epoch: int
    samples: tuple[int, ...]
    own: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepOrder:
    """The samples of every step from 0: each epoch in another order, drawn from (seed, epoch).

    What is left of an epoch and fills no batch is not used in it. A rank takes every num_ranks-th sample of a step, so
    the ranks together take the same ones whatever their number, and their shares may differ by one.

    Raises UsageError where a rank would be left without samples.
    """

    num_samples: int
    batch: int
    seed: int
    rank: int = 0
    num_ranks: int = 1

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.batch < 1:
            raise UsageError(f"{self.num_samples} samples in batches of {self.batch}, expected at least 1 of each")
        if not 0 <= self.rank < self.num_ranks:
            raise UsageError(f"rank {self.rank} of {self.num_ranks}, expected 0 to {self.num_ranks - 1}")
        if self.step_size < self.num_ranks:
            raise UsageError(
                f"{self.step_size} samples per step for {self.num_ranks} processes, expected at least one each; "
                f"start at most {self.step_size} processes or give a larger --batch"
            )

    @property
    def step_size(self) -> int:
        """Samples per step over all ranks: the batch, or all samples where there are fewer."""
        return min(self.batch, self.num_samples)

    @property
    def shrunk(self) -> str:
        """What to tell the user where the dataset is smaller than the batch; empty where it is not."""
        if self.step_size == self.batch:
            return ""
        return f"{self.num_samples} samples, fewer than the batch of {self.batch}: every step takes all of them"

    @property
    def steps_per_epoch(self) -> int:
        """How many whole batches an epoch has, at least 1."""
        return self.num_samples // self.step_size

    def step(self, number: int) -> Step:
        """The step of this number, from 0. `steps` is faster for many."""
        return next(self.steps(number, number + 1))

    def steps(self, first: int, last: int) -> Iterator[Step]:
        """The steps first .. last - 1."""
        epoch, shuffled = -1, np.empty(0, dtype=np.int64)
        for number in range(first, last):
            if number // self.steps_per_epoch != epoch:
                epoch = number // self.steps_per_epoch
                shuffled = self._shuffled(epoch)
            start = number % self.steps_per_epoch * self.step_size
            samples = tuple(int(index) for index in shuffled[start : start + self.step_size])
            yield Step(number, epoch, samples, samples[self.rank :: self.num_ranks])

    def _shuffled(self, epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        rng = np.random.Generator(np.random.Philox(seed_of(ORDER, self.seed, epoch)))
        return rng.permutation(self.num_samples)
