"""Which label file belongs to which image. No torch.

Order: by the first number in the image's path, then by the path (https://github.com/tue-mps/eomt, datasets/dataset.py).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import IO

from luma_cli.catalogue.datasets import DatasetCard, SplitCard
from luma_cli.catalogue.near import nearest
from luma_cli.data.locate import Root, missing_folder
from luma_cli.data.source import Source
from luma_cli.errors import DataError, UnknownName

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Part:
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
    """What the two folders of a split hold. unlabelled: images whose label file is missing; imageless: label files."""

    split: str
    images: Part
    labels: Part
    pairs: tuple[Pair, ...]
    unlabelled: tuple[Pair, ...] = ()
    imageless: tuple[str, ...] = ()


def find_pairs(card: DatasetCard, root: Root, split: str) -> Pairing:
    """The pairs of a split in their order, and what has no counterpart.

    Raises UnknownName for a split that the card lacks, DataError for a missing folder or one without images.
    """
    described = _split_card(card, split)
    images, image_sizes = _part(card, root, described, described.images)
    labels, label_sizes = _part(card, root, described, described.labels)
    label_names = [name for name in label_sizes if name.endswith(card.label_suffix)]
    if described.images == described.labels:
        image_sizes = {name: size for name, size in image_sizes.items() if name not in set(label_names)}
    found = _ordered(card, described, (pair for name in image_sizes if (pair := _pair(card, name))))
    if not found:
        raise DataError(_no_images(card, images, list(image_sizes)))
    _refuse_shared(images, found)
    whole = tuple(
        replace(pair, image_bytes=image_sizes[pair.image], labels_bytes=label_sizes[pair.labels])
        for pair in found
        if pair.labels in label_sizes
    )
    return Pairing(
        split,
        images,
        labels,
        _named(whole),
        unlabelled=tuple(pair for pair in found if pair.labels not in label_sizes),
        imageless=tuple(sorted(set(label_names) - {pair.labels for pair in found})),
    )


def fingerprint_of(pairs: Sequence[Pair]) -> str:
    """SHA-256 over the paths and sizes of both files of every pair, in hexadecimal digits."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(
            f"{pair.image}\0{pair.image_bytes}\0{pair.labels}\0{pair.labels_bytes}\n".encode(errors="surrogateescape")
        )
    return digest.hexdigest()


def _split_card(card: DatasetCard, split: str) -> SplitCard:
    if split in card.splits:
        return card.splits[split]
    near = nearest(split, card.splits, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected {' or '.join(card.splits)}"
    raise UnknownName(f"{card.name} has no split {split!r}; {hint}")


def _part(card: DatasetCard, root: Root, split: SplitCard, folder: str) -> tuple[Part, dict[str, int]]:
    """The folder in the first source that has it, and the sizes of its files in bytes."""
    for source in root.sources:
        sizes = source.sizes(folder, split.recursive)
        if sizes is not None:
            return Part(source, folder), sizes
    raise missing_folder(card, root, split, folder)


def _pair(card: DatasetCard, image: str) -> Pair | None:
    suffix = max((each for each in card.image_suffixes if image.endswith(each)), key=len, default=None)
    if suffix is None:
        return None
    stem = image.removesuffix(suffix)
    return Pair(stem, image, stem + card.label_suffix) if PurePosixPath(stem).name else None


def _ordered(card: DatasetCard, split: SplitCard, pairs: Iterable[Pair]) -> list[Pair]:
    def key(pair: Pair) -> tuple[int, str]:
        path = f"{card.folder}/{split.images}/{pair.image}"
        number = _NUMBER.search(path)
        return (int(number.group()) if number else 0), path

    return sorted(pairs, key=key)


def _named(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Pairs with short names: without folders, where that leaves all of them different."""
    short = [pair.name.rpartition("/")[2] for pair in pairs]
    if len(set(short)) < len(short):
        return pairs
    return tuple(replace(pair, name=name) for pair, name in zip(pairs, short, strict=True))


def _refuse_shared(images: Part, pairs: Sequence[Pair]) -> None:
    shared = [labels for labels, count in Counter(pair.labels for pair in pairs).items() if count > 1]
    if shared:
        both = [images.where(pair.image) for pair in pairs if pair.labels == shared[0]]
        raise DataError(f"{' and '.join(both)} have the same label file {shared[0]}, expected one image for each")


def _no_images(card: DatasetCard, images: Part, names: list[str]) -> str:
    suffixes = Counter(PurePosixPath(name).suffix or name for name in names).most_common(3)
    there = ", ".join(f"{count} {suffix}" for suffix, count in suffixes) or "no file"
    return f"{images.where('')}: no image that ends in {' or '.join(card.image_suffixes)}; there is {there}"
