"""Pairs of images and label maps that are drawn from a seed when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from luma_cli.catalogue.datasets import IGNORED, LabelClass, LabelTable
from luma_cli.errors import BadSample


def table(num_classes: int) -> LabelTable:
    return LabelTable(tuple(LabelClass(f"class {i}", (i,), (i, i, i)) for i in range(num_classes)))


def blobs(rng: np.random.Generator, height: int, width: int, num_classes: int, cell: int = 9) -> np.ndarray:
    """A label map of irregular patches, a tenth of them ignored."""
    coarse = rng.integers(0, num_classes, (height // cell + 2, width // cell + 2)).astype(np.uint8)
    coarse[rng.random(coarse.shape) < 0.1] = IGNORED
    rows = (np.arange(height)[:, None] + rng.integers(0, cell, (1, width))) // cell
    columns = (np.arange(width)[None] + rng.integers(0, cell, (height, 1))) // cell
    return coarse[rows, columns]


@dataclass
class DrawnSamples:
    """As many pairs as sizes; `bad` says which cannot be read."""

    sizes: tuple[tuple[int, int], ...]
    num_classes: int = 5
    bad: tuple[int, ...] = ()
    seed: int = 0
    table: LabelTable = field(init=False)

    def __post_init__(self) -> None:
        self.table = table(self.num_classes)

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, index: int) -> str:
        return f"drawn_{index}"

    def image(self, index: int) -> np.ndarray:
        if index in self.bad:
            raise BadSample(f"drawn_{index}.jpg: damaged")
        return np.random.default_rng([self.seed, index]).integers(0, 256, (*self.sizes[index], 3), np.uint8)

    def labels(self, index: int) -> np.ndarray:
        return blobs(np.random.default_rng([self.seed, index, 1]), *self.sizes[index], self.num_classes)
