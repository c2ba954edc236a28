"""One split of a dataset: pairs of an image and its label file, in a fixed order, read where they are. No torch.

H W pixels of the file, as stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from luma_cli.catalogue.datasets import DatasetCard, Labels, LabelTable
from luma_cli.data.decode import decode_image, decode_labels, image_size
from luma_cli.data.locate import Root
from luma_cli.data.pairing import Pair, Pairing, Part, find_pairs, fingerprint_of
from luma_cli.data.source import reading
from luma_cli.errors import BadSample, DataError

_FINGERPRINT_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs with labels, as `Samples`. It can be pickled; every process opens archives for itself.

    fingerprint: SHA-256 over the names and sizes of every pair, equal for a folder and an archive of the same files.
    """

    card: DatasetCard
    name_of_split: str
    image_files: Part
    label_files: Part
    pairs: tuple[Pair, ...]
    fingerprint: str

    @property
    def table(self) -> LabelTable:
        """The classes that the label maps hold."""
        return self.card.table

    @property
    def is_official(self) -> bool:
        """Whether it has as many pairs as the shipped card says; False for a dataset of the user's own."""
        return self.card.shipped and len(self) == self.card.splits[self.name_of_split].count

    @property
    def identity(self) -> str:
        """The dataset as results name it: `ade20k`, or `ade20k#1a2b3c4d` for other files than the official ones."""
        return self.card.name if self.is_official else f"{self.card.name}#{self.fingerprint[:_FINGERPRINT_DIGITS]}"

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The image's file without suffix, and with folders where several of them hold the same name."""
        return self.pairs[index].name

    def image_path(self, index: int) -> str:
        """The image file as messages name it."""
        return self.image_files.where(self.pairs[index].image)

    def labels_path(self, index: int) -> str:
        """The label file as messages name it."""
        return self.label_files.where(self.pairs[index].labels)

    def image(self, index: int) -> NDArray[np.uint8]:
        """RGB [H, W, 3]. Raises BadSample, naming the file, when it cannot be read as that."""
        return decode_image(self.image_files.read(self.pairs[index].image), self.image_path(index))

    def labels(self, index: int) -> Labels:
        """Class indices [H, W], IGNORED (255) where a pixel does not count.

        Raises BadSample, naming the file, also for a size other than the image's and for values that no class has.
        """
        values = self.values(index)
        if foreign := self.table.foreign(values):
            raise BadSample(f"{self.labels_path(index)}: {foreign_text(foreign)}, expected those of {self.card.file}")
        return self.table.encode(values)

    def values(self, index: int) -> Labels:
        """Values of the label file as stored [H, W]. Raises BadSample for a size other than the image's."""
        pair, where = self.pairs[index], self.labels_path(index)
        values = decode_labels(self.label_files.read(pair.labels), where)
        with reading(self.image_path(index)), self.image_files.open(pair.image) as file:
            size = image_size(file, self.image_path(index))
        if values.shape != size:
            turned = "; the image may have been rotated by its EXIF tag" if values.shape == size[::-1] else ""
            raise BadSample(
                f"{where}: {_by(values.shape)} pixels, but its image {self.image_path(index)} has {_by(size)}{turned}"
            )
        return values


def open_split(card: DatasetCard, root: Root, split: str) -> Split:
    """The split `train` or `val`. Raises DataError when the card lacks it, or files of it are missing."""
    return split_of(card, checked(card, find_pairs(card, root, split)))


def split_of(card: DatasetCard, pairing: Pairing) -> Split:
    """The pairs that there are, as a Split."""
    return Split(card, pairing.split, pairing.images, pairing.labels, pairing.pairs, fingerprint_of(pairing.pairs))


def checked(card: DatasetCard, pairing: Pairing) -> Pairing:
    """`pairing` itself. Raises DataError for images without labels, naming the first."""
    if pairing.unlabelled:
        first = pairing.unlabelled[0]
        raise DataError(
            f"{len(pairing.unlabelled)} of {len(pairing.unlabelled) + len(pairing.pairs)} images have no label file: "
            f"{pairing.images.where(first.image)} needs {pairing.labels.where(first.labels)}; "
            f"`luma data check {card.name if card.shipped else card.file}` names all"
        )
    return pairing


def foreign_text(values: tuple[int, ...]) -> str:
    """What is said of label values that no class has."""
    some = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    return f"label value{'s' if len(values) > 1 else ''} {some} in no class and not ignored"


def _by(shape: tuple[int, ...]) -> str:
    """Width x height of [H, W]."""
    return f"{shape[1]} x {shape[0]}"
