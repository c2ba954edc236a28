"""Work done ahead by threads, taken in order: files are decoded and scores counted while the model computes. No torch.

Threads, not processes: decoding, resizing and counting leave Python's lock, and arrays need not be copied over.
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Value = TypeVar("Value")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], pool: Executor | None, num_ahead: int
) -> Iterator[Result]:
    """`work` of every item, in order, at most `num_ahead` of them begun before they are asked for.

    Without a pool each is done when it is asked for. What `work` raises is raised when its turn comes.
    """
    if pool is None:
        yield from map(work, items)
        return
    waiting = iter(items)
    begun: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(waiting, num_ahead))
    try:
        while begun:
            first = begun.popleft()
            begun.extend(pool.submit(work, item) for item in islice(waiting, 1))
            yield first.result()
    finally:
        for left in begun:
            left.cancel()


class OnePerThread(Generic[Value]):
    """A copy of a value for every thread, made by pickling: open files are not shared."""

    def __init__(self, value: Value) -> None:
        self._pickled = pickle.dumps(value)
        self._local = threading.local()

    def get(self) -> Value:
        """The copy of the thread that asks."""
        if not hasattr(self._local, "value"):
            self._local.value = pickle.loads(self._pickled)
        value: Value = self._local.value
        return value
