"""Finds a dataset: the folder given, else $LUMA_DATA, else `luma.toml`; archives or extracted folders. No torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luma_cli.catalogue.datasets import DatasetCard, SplitCard
from luma_cli.data.settings import read_settings, settings_files
from luma_cli.data.source import Archive, Folder, Source
from luma_cli.errors import DataError

VARIABLE = "LUMA_DATA"


@dataclass(frozen=True, slots=True)
class Root:
    """Where a dataset was found. place: the folder that was given; sources: what is read there, the first wins."""

    place: Path
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A folder to look into, and who named it."""

    folder: Path
    named_by: str

    def __str__(self) -> str:
        return f"{self.folder} ({self.named_by})" + ("" if self.folder.exists() else ", which does not exist")


def find_root(card: DatasetCard, given: str | Path | None = None) -> Root:
    """Where the dataset is: in `given`, else in the first place that holds it.

    A place may be the folder of the archives, an archive, the extracted folder or its parent. Archives are read before
    extracted folders. Raises DataError that says what was looked for and where.
    """
    places = _places(card, given)
    for place in places:
        if sources := tuple(_sources(card, place.folder)):
            return Root(place.folder, sources)
    raise DataError(_not_found(card, places))


def _places(card: DatasetCard, given: str | Path | None) -> list[Place]:
    if given is not None:
        return [Place(Path(given).expanduser().absolute(), "--root")]
    places = [] if card.shipped else [Place(Path(card.file).parent, "beside the card")]
    if variable := os.environ.get(VARIABLE):
        places.append(Place(Path(variable).expanduser().absolute(), f"${VARIABLE}"))
    for setting in sorted(read_settings(), key=lambda each: not each.dataset):
        if setting.dataset in ("", card.name):
            places.append(Place(setting.folder, str(setting.file)))
    return places


def _sources(card: DatasetCard, place: Path) -> Iterator[Source]:
    """Every archive of the card at the place, then every folder that holds one of its split folders."""
    bases = _bases(card, place)
    for base in bases:
        for name in card.archives:
            if (base / name).is_file():
                yield Archive(base / name, card.folder)
    if place.is_file() and place.suffix == ".zip" and place.name not in card.archives:
        yield Archive(place, card.folder)
    for base in bases:
        for inner in dict.fromkeys((base / card.folder, base)):
            if any((inner / folder).is_dir() for folder in _folders(card)):
                yield Folder(inner)


def _bases(card: DatasetCard, place: Path) -> tuple[Path, ...]:
    start = place.parent if place.is_file() and place.name in card.archives else place
    return start, start / card.name


def _folders(card: DatasetCard) -> list[str]:
    """Folders that tell the dataset, without the dataset's own folder, which every place would be."""
    every = (folder for split in card.splits.values() for folder in (split.images, split.labels))
    return list(dict.fromkeys(every))


def _not_found(card: DatasetCard, places: list[Place]) -> str:
    inner = f"{card.folder}/" if card.folder else ""
    wanted = [*card.archives, *(f"{inner}{folder or '.'}/" for folder in _folders(card))]
    looked = "; ".join(map(str, places))
    if not places:
        files = ", ".join(map(str, settings_files()))
        looked = f"no place: --root is not given, ${VARIABLE} is not set, and [data] is in none of {files}"
    source = f"; the dataset is at {card.sources[0]}" if card.sources else ""
    return f"{card.name} not found: looked for {', '.join(wanted)} in {looked}; give --root DIR{source}"


def missing_folder(card: DatasetCard, root: Root, split: SplitCard, folder: str) -> DataError:
    """The error for a dataset that is there but for one of its folders, as Cityscapes without gtFine is."""
    there = ", ".join(source.where("").rstrip(": ") for source in root.sources)
    archives = f", or one of {', '.join(card.archives)} with it" if card.archives else ""
    other = split.labels if folder == split.images else split.images
    return DataError(
        f"{card.name} at {root.place}: the folder {folder or '.'}/, which belongs to {other or '.'}/, is missing in "
        f"{there}; add that folder{archives}"
    )
