"""Images with label maps, as training and evaluation read them; `Split` is the one that reads a dataset. No torch.

H W pixels of the file, as stored.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from luma_cli.catalogue.datasets import Labels, LabelTable


class Samples(Protocol):
    """A sequence of pairs in a fixed order. It can be pickled, and read from several processes."""

    @property
    def table(self) -> LabelTable:
        """The classes that the label maps hold."""

    def __len__(self) -> int:
        """How many pairs."""

    def name(self, index: int) -> str:
        """A short name that no other pair of the split has, e.g. `ADE_val_00000001`."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """RGB [H, W, 3]. Raises BadSample, naming the file, when it cannot be read as that."""

    def labels(self, index: int) -> Labels:
        """Class indices [H, W], IGNORED (255) where a pixel does not count. Raises BadSample, naming the file."""
