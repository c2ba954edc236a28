"""What a dataset is: its archives, folders, suffixes and classes, as a TOML file says it. No torch.

The shipped ones are in `profiles/datasets/`; a dataset of the user's own is a file of the same form (docs/data.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from luma_cli import content
from luma_cli.catalogue.near import nearest
from luma_cli.catalogue.reading import require
from luma_cli.data.card_classes import read_table
from luma_cli.data.label_table import LabelTable
from luma_cli.errors import BadCard, UnknownName

SPLITS = ("train", "val")

_KEYS = {
    "name": str,
    "title": str,
    "licence": str,
    "sources": list,
    "archives": list,
    "folder": str,
    "image_suffixes": list,
    "label_suffix": str,
    "classes": object,
    "ignored": object,
    "splits": dict,
}
_SPLIT_KEYS = {"images": str, "labels": str, "count": object, "recursive": bool}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class SplitCard:
    """One split: its folders, relative to the dataset's own. count: official number of images, 0 for unknown.

    recursive: whether files of folders below belong to it; a label then lies in the folder of the same name.
    """

    name: str
    images: str
    labels: str
    count: int = 0
    recursive: bool = False


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """A dataset as its file describes it.

    archives: names of the official archives. folder: the one that everything is in, inside the archive, empty for none.
    label_suffix: what takes the place of an image's suffix in the name of its label. file: where the card was read.
    shipped: whether it came with luma, so that the counts of its splits are official.
    """

    name: str
    title: str
    table: LabelTable
    splits: Mapping[str, SplitCard]
    image_suffixes: tuple[str, ...]
    label_suffix: str
    archives: tuple[str, ...] = ()
    folder: str = ""
    licence: str = ""
    sources: tuple[str, ...] = ()
    file: str = ""
    shipped: bool = False


def card_names() -> tuple[str, ...]:
    """Names of the shipped cards, in alphabetical order."""
    return tuple(sorted(path.stem for path in _shipped().glob("*.toml")))


def load_card(name_or_file: str | Path) -> DatasetCard:
    """The shipped card of that name, or the one in that TOML file.

    Raises UnknownName for a name that no card has, BadCard for a file that is missing or wrong.
    """
    text = str(name_or_file)
    if text in card_names():
        return read_card(_shipped() / f"{text}.toml", shipped=True)
    if isinstance(name_or_file, Path) or text.endswith(".toml") or "/" in text:
        return read_card(Path(text).expanduser().absolute())
    near = nearest(text, card_names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected {' or '.join(card_names())}"
    raise UnknownName(f"no dataset {text!r}; {hint}; a dataset of your own is a file, e.g. {text}.toml (docs/data.md)")


def read_card(path: Path, shipped: bool = False) -> DatasetCard:
    """The card in the file at `path`. Raises BadCard naming the file, the key and the nearest valid spelling."""
    values = require(str(path), _toml(path), _KEYS, ("image_suffixes", "label_suffix", "splits"))
    name = values.get("name", path.stem)
    if not _NAME.fullmatch(name):
        raise BadCard(f"{path}: name is {name!r}, expected letters, digits, _ and -; add name = ...")
    card = DatasetCard(
        name=name,
        title=values.get("title", name),
        table=read_table(str(path), values.get("classes"), values.get("ignored")),
        splits=_splits(path, values["splits"]),
        image_suffixes=tuple(values["image_suffixes"]),
        label_suffix=values["label_suffix"],
        archives=tuple(_file_name(path, archive) for archive in values.get("archives", ())),
        folder=_inner_path(path, "folder", values.get("folder", "")),
        licence=values.get("licence", ""),
        sources=tuple(values.get("sources", ())),
        file=str(path),
        shipped=shipped,
    )
    _check_suffixes(path, card)
    return card


def _shipped() -> Path:
    return content.root() / "profiles" / "datasets"


def _toml(path: Path) -> dict[str, Any]:
    try:
        return content.read_toml(path)
    except FileNotFoundError:
        raise BadCard(f"{path}: no such file; expected the TOML file of a dataset (docs/data.md)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadCard(f"{path}: cannot be read: {error}; expected the TOML file of a dataset (docs/data.md)") from error


def _splits(path: Path, tables: Mapping[str, Any]) -> dict[str, SplitCard]:
    require(f"{path}: [splits]", tables, dict.fromkeys(SPLITS, dict), ())
    if not tables:
        raise BadCard(f"{path}: no split; add a table [splits.train] with images = ... and labels = ...")
    return {name: _split(path, name, tables[name]) for name in SPLITS if name in tables}


def _split(path: Path, name: str, table: Any) -> SplitCard:
    where = f"{path}: [splits.{name}]"
    values = require(where, table, _SPLIT_KEYS, ("images", "labels"))
    count = values.get("count", 0)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise BadCard(f"{where}: count is {count!r}, expected a number of images, or leave it out")
    images, labels = (_inner_path(path, key, values[key]) for key in ("images", "labels"))
    return SplitCard(name, images, labels, count, values.get("recursive", False))


def _inner_path(path: Path, key: str, value: str) -> str:
    """A path inside the dataset, `.` as empty text. Raises BadCard for one that leads out of it."""
    inner = PurePosixPath(value)
    if inner.is_absolute() or ".." in inner.parts or "\\" in value or ":" in value or "\0" in value:
        raise BadCard(f"{path}: {key} is {value!r}, expected a path inside the dataset, with / and without ..")
    return "/".join(inner.parts)


def _file_name(path: Path, value: str) -> str:
    if not value.endswith(".zip") or value != Path(value).name or "\\" in value:
        raise BadCard(f"{path}: archive {value!r}, expected the name of a .zip file, without folders")
    return value


def _check_suffixes(path: Path, card: DatasetCard) -> None:
    """Raises BadCard when a suffix is empty, or images and labels of one folder would have the same names."""
    if not card.image_suffixes or not all((*card.image_suffixes, card.label_suffix)):
        raise BadCard(f'{path}: a suffix is empty, expected image_suffixes = [".jpg"] and label_suffix = ".png" alike')
    for split in card.splits.values():
        if split.images == split.labels and card.label_suffix in card.image_suffixes:
            raise BadCard(
                f"{path}: [splits.{split.name}]: images and labels share the folder {split.images or '.'!r} "
                f"and the suffix {card.label_suffix!r}, expected one of them to differ"
            )
