"""One split of a dataset: pairs of an image and its label file, read in place. No torch.

Pairs are ordered by the first number in the image's path, then by the path (https://github.com/tue-mps/eomt,
datasets/dataset.py). H W pixels of the file, as stored.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from luma_cli.catalogue.datasets import DatasetCard, Labels, LabelTable, SplitCard
from luma_cli.catalogue.reading import nearest
from luma_cli.data.decode import decode_image, decode_labels, image_size
from luma_cli.data.source import Root, Source, missing_folder, reading
from luma_cli.errors import BadSample, DataError, UnknownName

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class SplitFolder:
    """A folder of a source: the images of a split, or its labels. Paths are relative to it."""

    source: Source
    folder: str

    def read(self, path: str) -> bytes:
        """The whole file. Raises BadSample, naming it."""
        return self.source.read(self._path(path))

    def open(self, path: str) -> IO[bytes]:
        """The file, to read its beginning."""
        return self.source.open(self._path(path))

    def where(self, path: str) -> str:
        """The file as a message names it."""
        return self.source.where(self._path(path))

    def _path(self, path: str) -> str:
        return f"{self.folder}/{path}" if self.folder else path


@dataclass(frozen=True, slots=True)
class Pair:
    """An image file and its label file, their paths in their parts and their sizes."""

    name: str
    image: str
    labels: str
    image_bytes: int = 0
    labels_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Pairing:
    """The content of a split's two folders. unlabelled: images without labels; imageless: labels without images."""

    split: str
    images: SplitFolder
    labels: SplitFolder
    pairs: tuple[Pair, ...]
    unlabelled: tuple[Pair, ...] = ()
    imageless: tuple[str, ...] = ()


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


def find_pairs(card: DatasetCard, root: Root, split: str) -> Pairing:
    """The pairs of a split in their order, and the files without a counterpart.

    Raises UnknownName for a split that the card lacks, DataError for a missing folder or one without images.
    """
    if split not in card.splits:
        near = nearest(split, card.splits, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected {' or '.join(card.splits)}"
        part = "; val_share = 0.1 in its card takes a tenth of train" if split == "val" else ""
        raise UnknownName(f"{card.name} has no split {split!r}; {hint}{part}")
    described = card.splits[split]
    images, image_sizes = _part(card, root, described, described.images)
    labels, label_sizes = _part(card, root, described, described.labels)
    label_names = {name for name in label_sizes if _stem(name, card.label_prefix, (card.label_suffix,))}
    if described.images == described.labels:
        if card.image_prefix.startswith(card.label_prefix) and card.image_prefix != card.label_prefix:
            label_names = {name for name in label_names if not _stem(name, card.image_prefix, card.image_suffixes)}
        image_sizes = {name: size for name, size in image_sizes.items() if name not in label_names}
    top = f"{card.folder}/{described.images}"
    found = sorted((pair for name in image_sizes if (pair := _pair(card, name))), key=lambda pair: _place(top, pair))
    if not found:
        suffixes = Counter(PurePosixPath(name).suffix or name for name in image_sizes).most_common(3)
        there = ", ".join(f"{count} {suffix}" for suffix, count in suffixes) or "no file"
        starts = f"starts with {card.image_prefix} and " if card.image_prefix else ""
        wanted = " or ".join(card.image_suffixes)
        raise DataError(f"{images.where('')}: no image that {starts}ends in {wanted}; there is {there}")
    imageless = label_names - {pair.labels for pair in found}
    found = _listed(card, root, described, found)
    if shared := [labels for labels, count in Counter(pair.labels for pair in found).items() if count > 1]:
        both = " and ".join(images.where(pair.image) for pair in found if pair.labels == shared[0])
        raise DataError(f"{both} have the same label file {shared[0]}, expected one image for each")
    whole = [
        replace(pair, image_bytes=image_sizes[pair.image], labels_bytes=label_sizes[pair.labels])
        for pair in found
        if pair.labels in label_sizes
    ]
    short = [pair.name.rpartition("/")[2] for pair in whole]
    if len(set(short)) == len(short):  # folders are left out of names where these stay different
        whole = [replace(pair, name=name) for pair, name in zip(whole, short, strict=True)]
    unlabelled = tuple(pair for pair in found if pair.labels not in label_sizes)
    return Pairing(split, images, labels, tuple(whole), unlabelled, tuple(sorted(imageless)))


def _part(card: DatasetCard, root: Root, split: SplitCard, folder: str) -> tuple[SplitFolder, dict[str, int]]:
    """The folder in the first source that has it, and the sizes of its files in bytes."""
    for source in root.sources:
        sizes = source.sizes(folder, split.recursive)
        if sizes is not None:
            return SplitFolder(source, folder), sizes
    raise missing_folder(card, root, split, folder)


def _stem(path: str, prefix: str, suffixes: tuple[str, ...]) -> str:
    """The path without the prefix and the longest suffix of its file's name; empty when it lacks them."""
    suffix = max((each for each in suffixes if path.endswith(each)), key=len, default=None)
    if suffix is None:
        return ""
    folder, slash, name = path.removesuffix(suffix).rpartition("/")
    return f"{folder}{slash}{name.removeprefix(prefix)}" if name.startswith(prefix) and name != prefix else ""


def _pair(card: DatasetCard, image: str) -> Pair | None:
    stem = _stem(image, card.image_prefix, card.image_suffixes)
    folder, slash, name = stem.rpartition("/")
    return Pair(stem, image, f"{folder}{slash}{card.label_prefix}{name}{card.label_suffix}") if stem else None


def _place(top: str, pair: Pair) -> tuple[int, str]:
    path = f"{top}/{pair.image}"
    number = _NUMBER.search(path)
    return (int(number.group()) if number else 0), path


def _listed(card: DatasetCard, root: Root, split: SplitCard, found: list[Pair]) -> list[Pair]:
    """Those pairs that the list file of the split names, or that fall into its share; all without either."""
    if split.list:
        folder, _, name = split.list.rpartition("/")
        source = next((each for each in root.sources if name in (each.sizes(folder, recursive=False) or ())), None)
        if source is None:
            raise DataError(f"{card.name} at {root.place}: no file {split.list}, which lists its {split.name} images")
        by_name = {name: pair for pair in found for name in (pair.name, pair.image)}
        text = source.read(split.list).decode("utf-8-sig", errors="surrogateescape")
        lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
        if missing := [(number, line) for number, line in lines if line not in by_name]:
            number, line = missing[0]
            raise DataError(
                f"{source.where(split.list)}: {len(missing):,} of {len(lines):,} lines name no image, the first "
                f"{line!r} (at line {number}); expected names in {split.images or '.'}/ such as {found[0].name!r}"
            )
        wanted = {by_name[line].image for _, line in lines}
        found = [pair for pair in found if pair.image in wanted]
    if card.val_share and split.name != "test":
        drawn = sorted(
            (hashlib.sha256(pair.name.encode(errors="surrogateescape")).digest(), pair.image) for pair in found
        )
        number = sum(int.from_bytes(digest[:8]) < card.val_share * 2**64 for digest, _ in drawn)
        number = min(max(number, 1), len(drawn) - 1)  # a file that is added moves no other, and both have at least one
        val = {image for _, image in drawn[:number]}
        found = [pair for pair in found if (pair.image in val) == (split.name == "val")]
    if not found:
        raise DataError(f"{card.name} at {root.place}: no image belongs to {split.name}; add images")
    return found


_FINGERPRINT_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Split:
    """Pairs with labels, as `Samples`. It can be pickled; every process opens archives for itself.

    fingerprint: SHA-256 over the names and sizes of every pair, equal for a folder and an archive of the same files.
    """

    card: DatasetCard
    name_of_split: str
    image_files: SplitFolder
    label_files: SplitFolder
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
        return decode_image(self.image_files.read(self.pairs[index].image), self.image_path(index)).pixels

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
        values = decode_labels(self.label_files.read(pair.labels), where, self.table)
        with reading(self.image_path(index)), self.image_files.open(pair.image) as file:
            size = image_size(file, self.image_path(index))
        if values.shape != size:
            turned = "; the image may have been rotated by its EXIF tag" if values.shape == size[::-1] else ""
            raise BadSample(
                f"{where}: {by(values.shape)} pixels, but its image {self.image_path(index)} has {by(size)}{turned}"
            )
        return values


def open_split(card: DatasetCard, root: Root, split: str) -> Split:
    """The split `train`, `val` or `test`. Raises DataError when the card lacks it, or files of it are missing."""
    pairing = find_pairs(card, root, split)
    if pairing.unlabelled:
        first = pairing.unlabelled[0]
        raise DataError(
            f"{len(pairing.unlabelled)} of {len(pairing.unlabelled) + len(pairing.pairs)} images have no label file: "
            f"{pairing.images.where(first.image)} needs {pairing.labels.where(first.labels)}; "
            f"`luma data check {card.name if card.shipped else card.file}` names all"
        )
    return split_of(card, pairing)


def split_of(card: DatasetCard, pairing: Pairing) -> Split:
    """The complete pairs as a Split; images without labels are left out."""
    digest = hashlib.sha256()
    for pair in pairing.pairs:
        digest.update(
            f"{pair.image}\0{pair.image_bytes}\0{pair.labels}\0{pair.labels_bytes}\n".encode(errors="surrogateescape")
        )
    return Split(card, pairing.split, pairing.images, pairing.labels, pairing.pairs, digest.hexdigest())


_MOST_COMPARED = 64


def shared_note(train: Split, val: Split) -> str:
    """A note about images of both splits: one file, or equal names and content; empty where none is found.

    It costs no time: of images whose names and sizes are equal, 64 are read. `luma data check` compares all contents.
    """
    places = {train.image_path(index) for index in range(len(train))}
    names = [val.name(index) for index in range(len(val)) if val.image_path(index) in places]
    if not names:
        alike = {(pair.image.rpartition("/")[2], pair.image_bytes): pair.image for pair in train.pairs}
        keys = ((pair.name, pair.image, (pair.image.rpartition("/")[2], pair.image_bytes)) for pair in val.pairs)
        same = [(name, image, alike[key]) for name, image, key in keys if key in alike][:_MOST_COMPARED]
        names = [name for name, image, other in same if val.image_files.read(image) == train.image_files.read(other)]
    if not names:
        return ""
    images = "image is" if len(names) == 1 else "images are"
    return (
        f"{len(names):,} {images} in train and in val, e.g. {names[0]}, so the scores say little about new images; "
        "`luma data check` names all"
    )


def foreign_text(values: tuple[int, ...]) -> str:
    """The message about label values that belong to no class."""
    some = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
    return f"label value{'s' if len(values) > 1 else ''} {some} in no class and not ignored"


def by(shape: tuple[int, ...]) -> str:
    """Width x height of [H, W]."""
    return f"{shape[1]} x {shape[0]}"
