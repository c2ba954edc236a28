"""Batches of training, read ahead by worker processes: the same ones whatever the number of workers.

b samples of this rank, R side of the crop.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from luma_cli.data.order import StepOrder
from luma_cli.data.training_set import Item, TrainingSet
from luma_cli.errors import DataError, LumaError

_PREFETCHED_BATCHES = 2  # per worker; PyTorch's own number
_Taken = tuple[Tensor, Tensor, tuple[str, ...]] | LumaError


@dataclass(frozen=True, slots=True)
class Batch:
    """What this rank takes of a step: uint8 images [b, 3, R, R] and class indices [b, R, R].

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
) -> Iterator[Batch]:
    """The batches of steps first_step .. last_step - 1 of this rank; close the iterator to end its workers.

    start_method: how workers are started, as multiprocessing names it; None for Python's usual one.

    Raises BadSample as the set does, DataError when a worker dies.
    """
    reading = _start(_loader(training_set, order, first_step, last_step, num_workers, pin_memory, start_method))
    try:
        for step in order.steps(first_step, last_step):
            taken = _next(reading)
            if isinstance(taken, LumaError):
                raise taken
            images, labels, skipped = taken
            yield Batch(step.number, step.epoch, images, labels, step.own, skipped)
    finally:
        del reading  # ends the workers


class _Guarded(Dataset[Item | LumaError]):
    """A training set that hands over its errors: raised in a worker, they would arrive as the text of a traceback."""

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


def _loader(
    training_set: TrainingSet,
    order: StepOrder,
    first_step: int,
    last_step: int,
    num_workers: int,
    pin_memory: bool,
    start_method: str | None,
) -> DataLoader[Any]:
    return DataLoader(
        _Guarded(training_set),
        batch_sampler=_Keys(order, first_step, last_step),
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=pin_memory,
        multiprocessing_context=multiprocessing.get_context(start_method) if num_workers else None,
        prefetch_factor=_PREFETCHED_BATCHES if num_workers else None,
        worker_init_fn=_shield_worker if num_workers else None,
        generator=torch.Generator(),  # else every loader takes a number from the global one
    )


def _collate(items: Sequence[Item | LumaError]) -> _Taken:
    good: list[Item] = []
    for item in items:
        if isinstance(item, LumaError):
            return item
        good.append(item)
    images, labels = torch.stack([item.image for item in good]), torch.stack([item.labels for item in good])
    return images, labels, tuple(name for item in good for name in item.skipped)


def _start(loader: DataLoader[Any]) -> Iterator[_Taken]:
    """Start the workers, without the handler by which PyTorch raises in the midst of a step when one of them dies.

    A death is found all the same when its next batch is awaited.
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
            "a process that loads data died, most likely for want of memory; start again with fewer --workers "
            "(0 loads in the training process)"
        ) from None


def _shield_worker(_: int) -> None:
    """Leave it to the training process to end this worker: signals that go to a whole job must not.

    On Ctrl-C, or when a cluster stops a job, training may still want a batch to finish its step.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    """End this process at a SIGTERM of its parent's, as multiprocessing sends it; ignore those of others."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
