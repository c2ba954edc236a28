"""Samples in memory for tests of what reads samples, some of them bad on purpose."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from luma_cli.catalogue.datasets import IGNORED, LabelClass, Labels, LabelTable
from luma_cli.errors import BadSample

TABLE = LabelTable(tuple(LabelClass(f"class {index}", (index,), (index, 0, 0)) for index in range(5)))


@dataclass(frozen=True)
class ArraySamples:
    """Random pictures of random sizes; `bad` raise BadSample, `deadly` kill the process that reads them."""

    number: int = 12
    bad: frozenset[int] = field(default_factory=frozenset)
    deadly: frozenset[int] = field(default_factory=frozenset)
    odd_sizes: frozenset[int] = field(default_factory=frozenset)

    @property
    def table(self) -> LabelTable:
        return TABLE

    def __len__(self) -> int:
        return self.number

    def name(self, index: int) -> str:
        return f"picture_{index}"

    def size(self, index: int) -> tuple[int, int]:
        rng = np.random.default_rng(index)
        return int(rng.integers(30, 90)), int(rng.integers(30, 90))

    def image(self, index: int) -> NDArray[np.uint8]:
        if index in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if index in self.bad:
            raise BadSample(f"{self.name(index)}.jpg: not a JPEG")
        return np.random.default_rng(index).integers(0, 256, (*self.size(index), 3), dtype=np.uint8)

    def labels(self, index: int) -> Labels:
        height, width = self.size(index)
        values = np.random.default_rng(index).integers(0, 6, (height // 10 + 1, width // 10 + 1), dtype=np.uint8)
        values[values == 5] = IGNORED
        labels = values.repeat(10, 0).repeat(10, 1)[:height, : width - (index in self.odd_sizes)]
        return np.ascontiguousarray(labels)
