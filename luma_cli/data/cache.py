"""Decoded images and label maps of a split in memory that all loading processes share, where they fit.

A PNG costs several milliseconds each time it is decoded, a copy a tenth of one. The memory is anonymous, so that a
small /dev/shm does not matter: processes share it when they are forked; in others, and where a file is damaged, each
access reads the file. Every pixel is that of the file.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luma_cli.catalogue.datasets import Labels, LabelTable
from luma_cli.data.decode import image_size
from luma_cli.data.source import reading
from luma_cli.data.split import Samples, Split
from luma_cli.errors import BadSample

_SAMPLED = 32  # images whose sizes tell whether it is worth asking all
_BYTES_PER_PIXEL = 4  # red, green, blue, label


class CachedSamples:
    """The pairs of a split, each decoded once. sizes: (H, W) of every image, (0, 0) for one that is not kept.

    A pickled copy has no memory in common with the others and reads every file.
    """

    def __init__(self, samples: Split, sizes: list[tuple[int, int]]) -> None:
        self.samples = samples
        self._sizes = sizes
        # A byte for each image and each label map says whether it is there; then all pixels, one pair after the other.
        self._starts = list(accumulate((pixels(size) for size in sizes), initial=2 * len(sizes)))
        self._memory: mmap.mmap | None = mmap.mmap(-1, self._starts[-1])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": None}

    @property
    def table(self) -> LabelTable:
        """The classes that the label maps hold."""
        return self.samples.table

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        """A short name that no other pair of the split has."""
        return self.samples.name(index)

    def image(self, index: int) -> NDArray[np.uint8]:
        """RGB [H, W, 3]. Raises BadSample as the split does."""
        height, width = self._sizes[index]
        return self._kept(2 * index, self._starts[index], (height, width, 3), lambda: self.samples.image(index))

    def labels(self, index: int) -> Labels:
        """Class indices [H, W]. Raises BadSample as the split does."""
        height, width = self._sizes[index]
        start = self._starts[index] + 3 * height * width
        return self._kept(2 * index + 1, start, (height, width), lambda: self.samples.labels(index))

    def _kept(
        self, flag: int, start: int, shape: tuple[int, ...], read: Callable[[], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        if self._memory is None or not shape[0]:
            return read()
        held = np.frombuffer(self._memory, np.uint8, int(np.prod(shape)), start).reshape(shape)
        if self._memory[flag]:
            return held.copy()
        found = read()
        if found.shape == shape:
            held[:] = found
            self._memory[flag] = 1  # after the pixels: two processes may both write them, which are the same
        return found


def pixels(size: tuple[int, int]) -> int:
    """Bytes of an image of (H, W) and its label map."""
    return _BYTES_PER_PIXEL * size[0] * size[1]


def cached(split: Split, most_bytes: float) -> tuple[Samples, str]:
    """The split with its decoded images kept in memory if they take at most `most_bytes`; and what was decided."""
    some = range(0, len(split), -(-len(split) // _SAMPLED))
    about = sum(pixels(_size(split, index)) for index in some) / len(some) * len(split)
    if about > most_bytes:
        return split, f"decoded in every epoch: {_gb(about)} would not fit into {_gb(most_bytes)}"
    sizes = [_size(split, index) for index in range(len(split))]
    needed = sum(map(pixels, sizes))
    if needed > most_bytes:
        return split, f"decoded in every epoch: {_gb(needed)} would not fit into {_gb(most_bytes)}"
    return CachedSamples(split, sizes), f"kept decoded in memory, {_gb(needed)}"


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.3g} MB"


def _size(split: Split, index: int) -> tuple[int, int]:
    """(H, W), (0, 0) for an unreadable file, which training names when it meets it."""
    pair, where = split.pairs[index], split.image_path(index)
    try:
        with reading(where), split.image_files.open(pair.image) as file:
            return image_size(file, where)
    except BadSample:
        return 0, 0
