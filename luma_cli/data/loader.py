"""Training batches, read ahead by worker processes: equal for any number of workers.

A step's samples follow from its number, a sample's changes from (seed, epoch, index): a run can be resumed at any step.
b samples of this rank, H W pixels of the file, R side of the crop.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from luma_cli.catalogue.datasets import Labels
from luma_cli.catalogue.recipes import Augmentation
from luma_cli.data.augment import augment
from luma_cli.data.decode import keep_freed_memory
from luma_cli.data.split import Samples
from luma_cli.errors import BadSample, DataError, LumaError, UsageError
from luma_cli.seeds import ORDER, SAMPLE, seed_of


@dataclass(frozen=True, slots=True)
class StepSamples:
    """Samples of one optimiser step: of all ranks together, and of this rank; none occurs twice."""

    number: int
    epoch: int
    samples: tuple[int, ...]
    own: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepOrder:
    """The samples of every step from 0: each epoch in another order, drawn from (seed, epoch).

    The rest of an epoch that fills no batch is not used. A rank takes every num_ranks-th sample of a step, so that all
    ranks together take the same ones whatever their number. Raises UsageError where a rank would have no samples.
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
        """The note for a dataset that is smaller than the batch; empty otherwise."""
        if self.step_size == self.batch:
            return ""
        return f"{self.num_samples} samples, fewer than the batch of {self.batch}: every step takes all of them"

    @property
    def steps_per_epoch(self) -> int:
        """How many whole batches an epoch has, at least 1."""
        return self.num_samples // self.step_size

    def step(self, number: int) -> StepSamples:
        """The step of this number, from 0. `steps` is faster for many."""
        return next(self.steps(number, number + 1))

    def steps(self, first: int, last: int) -> Iterator[StepSamples]:
        """The steps first .. last - 1."""
        epoch, shuffled = -1, np.empty(0, dtype=np.int64)
        for number in range(first, last):
            if number // self.steps_per_epoch != epoch:
                epoch = number // self.steps_per_epoch
                rng = np.random.Generator(np.random.Philox(seed_of(ORDER, self.seed, epoch)))
                shuffled = rng.permutation(self.num_samples)
            start = number % self.steps_per_epoch * self.step_size
            samples = tuple(int(index) for index in shuffled[start : start + self.step_size])
            yield StepSamples(number, epoch, samples, samples[self.rank :: self.num_ranks])


@dataclass(frozen=True, slots=True)
class Item:
    """uint8 image [3, R, R], class indices [R, R], and the names of bad samples that this one stands for."""

    image: Tensor
    labels: Tensor
    skipped: tuple[str, ...]


class TrainingSet(Dataset[Item]):
    """Items by (epoch, index): equal keys give equal pixels in any process, on any rank, before and after a resume.

    skip_bad: 0 raises BadSample for an unusable file; a higher number takes the next good sample instead, after at most
    that many bad ones. `Skipped` counts those of a whole training, over all workers.
    """

    def __init__(
        self, samples: Samples, resolution: int, augmentation: Augmentation, seed: int, skip_bad: int = 0
    ) -> None:
        self.samples = samples
        self.resolution = resolution
        self.augmentation = augmentation
        self.seed = seed
        self.skip_bad = skip_bad

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """The item of (epoch, index). Raises BadSample, naming the file."""
        epoch, index = key
        skipped: list[str] = []
        for offset in range(min(self.skip_bad + 1, len(self))):
            place = (index + offset) % len(self)
            try:
                image, labels = self._pair(place)
            except BadSample as error:
                last = error
                skipped.append(self.samples.name(place))
                continue
            seed = seed_of(SAMPLE, self.seed, epoch, index)
            return Item(*augment(image, labels, self.resolution, self.augmentation, seed), tuple(skipped))
        raise last

    def _pair(self, place: int) -> tuple[NDArray[np.uint8], Labels]:
        image, labels = self.samples.image(place), self.samples.labels(place)
        if image.shape[:2] != labels.shape:
            height, width = image.shape[:2]
            raise BadSample(
                f"{self.samples.name(place)}: labels of {labels.shape[1]} x {labels.shape[0]} pixels for an image of "
                f"{width} x {height}, expected equal sizes"
            )
        return image, labels


class Skipped:
    """Names of bad samples, each counted once however often an epoch meets it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._names: dict[str, None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were met."""
        return tuple(self._names)

    def add(self, names: Iterable[str]) -> tuple[str, ...]:
        """Count these; returns those that are new. Raises DataError when there are more than the limit."""
        new = tuple(dict.fromkeys(name for name in names if name not in self._names))
        self._names.update(dict.fromkeys(new))
        if len(self._names) > self.limit:
            raise DataError(
                f"{len(self._names)} bad samples, the last one {self.names[-1]}, but --skip-bad allows {self.limit}; "
                "see `luma data check`"
            )
        return new


_PREFETCHED_BATCHES = 2  # per worker; PyTorch's own number
_Taken = tuple[Tensor, Tensor, tuple[str, ...]] | LumaError


@dataclass(frozen=True, slots=True)
class Batch:
    """Of one step and rank: uint8 images [b, 3, R, R] and class indices [b, R, R].

    samples: indices into the dataset, in the order of the images; skipped: names of samples found bad.
    """

    step: int
    epoch: int
    images: Tensor
    labels: Tensor
    samples: tuple[int, ...]
    skipped: tuple[str, ...]


def batches(
    training_set: TrainingSet,
    order: StepOrder,
    first_step: int,
    last_step: int,
    num_workers: int,
    pin_memory: bool = False,
    start_method: str | None = None,
) -> Generator[Batch]:
    """The batches of steps first_step .. last_step - 1 of this rank; close the iterator to end its workers.

    start_method: of multiprocessing, None for Python's default. Raises BadSample as the set does, DataError when a
    worker dies.
    """
    loader: DataLoader[Any] = DataLoader(
        _Guarded(training_set),
        batch_sampler=_Keys(order, first_step, last_step),
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        multiprocessing_context=multiprocessing.get_context(start_method) if num_workers else None,
        prefetch_factor=_PREFETCHED_BATCHES if num_workers else None,
        worker_init_fn=_prepare_worker if num_workers else None,
        generator=torch.Generator(),  # else every loader takes a number from the global one
    )
    reading = _start(loader)
    try:
        for step in order.steps(first_step, last_step):
            taken = _next(reading)
            if isinstance(taken, LumaError):
                raise taken
            images, labels, skipped = taken
            yield Batch(step.number, step.epoch, images, labels, step.own, tuple(skipped))  # a list once pinned
    finally:
        del reading  # ends the workers


class _Guarded(Dataset[Item | LumaError]):
    """A training set that returns its errors: raised in a worker, they would arrive as the text of a traceback."""

    def __init__(self, training_set: TrainingSet) -> None:
        self.training_set = training_set

    def __getitem__(self, key: tuple[int, int]) -> Item | LumaError:
        try:
            return self.training_set[key]
        except LumaError as error:
            return error


class _Keys:
    """(epoch, index) of the samples of this rank, step by step."""

    def __init__(self, order: StepOrder, first_step: int, last_step: int) -> None:
        self.steps = (order, first_step, last_step)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, first, last = self.steps
        return ([(step.epoch, index) for index in step.own] for step in order.steps(first, last))


def _collate(items: Sequence[Item | LumaError]) -> _Taken:
    good: list[Item] = []
    for item in items:
        if isinstance(item, LumaError):
            return item
        good.append(item)
    images, labels = torch.stack([item.image for item in good]), torch.stack([item.labels for item in good])
    return images, labels, tuple(name for item in good for name in item.skipped)


def _start(loader: DataLoader[Any]) -> Iterator[_Taken]:
    """Start the workers without PyTorch's handler, which raises in the middle of a step when one of them dies.

    A death is still found when its next batch is awaited.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    reading = iter(loader)
    signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
    return reading


def _next(reading: Iterator[_Taken]) -> _Taken:
    try:
        return next(reading)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or "exited" not in str(error):
            raise
        raise DataError(
            "a process that loads data died, most likely for want of memory (or of shared memory, see `df /dev/shm`); "
            "start again with fewer --workers; 0 loads in the training process"
        ) from None


def _prepare_worker(_: int) -> None:
    """Keep memory between images, and let only the training process end this one.

    On Ctrl-C, or when a cluster stops a job, every process gets the signal, but training may still need a batch.
    """
    keep_freed_memory()
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    """End this process at a SIGTERM from its parent, as multiprocessing sends it; ignore others."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
