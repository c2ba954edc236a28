"""Samples as training takes them: read, changed at random by (seed, epoch, index) alone, replaced when bad.

H W pixels of the file, R side of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.utils.data import Dataset

from luma_cli.catalogue.recipes import Augmentation
from luma_cli.data.augment import augment
from luma_cli.data.samples import Samples
from luma_cli.errors import BadSample
from luma_cli.seeds import SAMPLE, seed_of


@dataclass(frozen=True, slots=True)
class Item:
    """uint8 image [3, R, R], class indices [R, R], and the names of bad samples that this one stands for."""

    image: Tensor
    labels: Tensor
    skipped: tuple[str, ...]


class TrainingSet(Dataset[Item]):
    """Items by (epoch, index): equal keys give equal pixels in any process, on any rank, before and after a resume.

    skip_bad: 0 raises BadSample for a file that cannot be used; more puts the next good sample in its place, after at
    most that many bad ones. How many may be skipped over a whole training is counted by `Skipped`, over all workers.
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
                return self._item(place, seed_of(SAMPLE, self.seed, epoch, index), tuple(skipped))
            except BadSample as error:
                last = error
                skipped.append(self.samples.name(place))
        raise last

    def _item(self, place: int, seed: int, skipped: tuple[str, ...]) -> Item:
        image, labels = self.samples.image(place), self.samples.labels(place)
        if image.shape[:2] != labels.shape:
            height, width = image.shape[:2]
            raise BadSample(
                f"{self.samples.name(place)}: labels of {labels.shape[1]} x {labels.shape[0]} pixels for an image of "
                f"{width} x {height}, expected equal sizes"
            )
        changed, classes = augment(image, labels, self.resolution, self.augmentation, seed)
        return Item(changed, classes, skipped)
