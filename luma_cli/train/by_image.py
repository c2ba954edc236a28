"""Images of a batch one after the other, or side by side in threads: what is done of one does not see the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

# Images done together: one is best for a CPU's cache; a GPU wants few launches, and 8 need less than 1 GB.
_AT_ONCE_ON_CPU, _AT_ONCE = 1, 8
_Found = TypeVar("_Found")


def groups(batch: int, device: torch.device) -> list[range]:
    """The images 0 .. B - 1 in groups that are done together on `device`."""
    size = _AT_ONCE_ON_CPU if device.type == "cpu" else _AT_ONCE
    return [range(first, min(first + size, batch)) for first in range(0, batch, size)]


def each(work: Callable[[range], _Found], images: Sequence[range], device: torch.device) -> list[_Found]:
    """`work` of every group, in their order, without gradients.

    On a CPU as many groups at a time as torch has threads, each on one core: threads that share every small operation
    wait for each other, which on a busy machine took ten times as long.
    """
    threads = min(torch.get_num_threads(), len(images)) if device.type == "cpu" else 1

    def without_gradients(group: range) -> _Found:
        with torch.no_grad():  # a setting of the thread
            return work(group)

    if threads == 1:
        return [without_gradients(group) for group in images]
    with _one_core_per_operation(), ThreadPoolExecutor(threads) as pool:
        return list(pool.map(without_gradients, images))


@contextmanager
def _one_core_per_operation() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads that start now take it over
    try:
        yield
    finally:
        torch.set_num_threads(before)
