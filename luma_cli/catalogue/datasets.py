"""What a dataset is: its archives, folders, suffixes and classes, as a TOML file says it. No torch.

The shipped ones are in `profiles/datasets/`; a dataset of the user's own is a file of the same form (docs/use/data.md).

The classes of a dataset: how values of a label file become class indices, and names and colours. No torch.

A label file holds values; a label map holds class indices 0 .. C - 1, and IGNORED where a pixel does not count.

The classes and ignored values in a dataset's card. No torch.
"""

from __future__ import annotations

import colorsys
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

from luma_cli import files
from luma_cli.catalogue.reading import nearest, require
from luma_cli.errors import BadCard, UnknownName, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


IGNORED = 255
MAX_CLASSES = 254
_NUM_VALUES = 256

# In quotes, because cards are read by commands that need no numpy.
Labels: TypeAlias = "NDArray[np.uint8]"


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class: its name, the values of a label file that mean it, and its colour (red, green, blue; 0 to 255)."""

    name: str
    values: tuple[int, ...]
    colour: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Classes in the order of their indices, and the values that mean "does not count"."""

    classes: tuple[LabelClass, ...]
    ignored: tuple[int, ...] = (IGNORED,)

    def __post_init__(self) -> None:
        """Raise BadCard for no classes, too many, a value out of 0 .. 255 or one with two meanings."""
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise BadCard(f"{len(self.classes)} classes, expected 1 to {MAX_CLASSES}")
        values = [value for each in self.classes for value in each.values] + list(self.ignored)
        if strange := [value for value in values if not 0 <= value < _NUM_VALUES]:
            raise BadCard(f"label value {strange[0]}, expected 0 to {_NUM_VALUES - 1}")
        if twice := [value for value in sorted(set(values)) if values.count(value) > 1]:
            raise BadCard(f"label value {twice[0]} is given two meanings, expected one")

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the indices."""
        return tuple(each.name for each in self.classes)

    def encode(self, values: Labels) -> Labels:
        """Values of a label file [H, W] -> class indices [H, W], IGNORED where ignored or unknown; see `foreign`."""
        import numpy as np

        lookup = np.full(_NUM_VALUES, IGNORED, dtype=np.uint8)
        for index, each in enumerate(self.classes):
            lookup[list(each.values)] = index
        return lookup.take(values)  # half the time of lookup[values]

    def foreign(self, values: Labels) -> tuple[int, ...]:
        """Values of a label file [H, W] that the table does not know, ascending; empty for a sound file."""
        known = bytes({value for each in self.classes for value in each.values} | set(self.ignored))
        return tuple(sorted(set(values.tobytes().translate(None, known))))  # a sixth of the time of np.bincount

    def decode(self, labels: Labels) -> Labels:
        """Class indices [H, W] -> the first value of each class, the first ignored value elsewhere."""
        import numpy as np

        lookup = np.full(_NUM_VALUES, (*self.ignored, IGNORED)[0], dtype=np.uint8)
        for index, each in enumerate(self.classes):
            lookup[index] = each.values[0]
        decoded: Labels = lookup[labels]
        return decoded


Colour = tuple[int, int, int]

_CLASS_KEYS = {"name": str, "value": object, "values": object, "colour": object}
_EXAMPLE = 'classes = ["road", "car"], or tables { name = "road", value = 7, colour = [128, 64, 128] }'
_GOLDEN = 0.6180339887498949


def read_table(where: str, classes: Any, ignored: Any) -> LabelTable:
    """The table of `classes` (names or tables) and `ignored` (a value, values, or name = value; 255 when missing).

    A class without a value has its place in the list as value, one without a colour gets a drawn one. Raises BadCard,
    naming `where`.
    """
    if not isinstance(classes, list) or not classes:
        raise BadCard(f"{where}: classes is {'missing' if classes is None else repr(classes)}, expected {_EXAMPLE}")
    read = tuple(_class(where, index, each) for index, each in enumerate(classes))
    if twice := [name for name, count in Counter(each.name for each in read).items() if count > 1]:
        raise BadCard(f"{where}: two classes are called {twice[0]!r}, expected different names")
    try:
        return LabelTable(read, _ignored(where, ignored))
    except BadCard as error:
        raise BadCard(f"{where}: {error}") from error


def drawn_colour(index: int) -> Colour:
    """A colour for the class `index`; different for every index below 254, neighbours in different hues."""
    hue = (index * _GOLDEN) % 1.0
    saturation, value = (0.85, 0.6, 0.95)[index % 3], (0.95, 0.75, 0.55)[index // 3 % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _class(where: str, index: int, given: Any) -> LabelClass:
    if isinstance(given, str):
        given = {"name": given}
    inside = f"{where}: classes[{index}]"
    table = require(inside, given, _CLASS_KEYS, ("name",))
    if not table["name"].strip():
        raise BadCard(f"{inside}: the name is empty, expected text")
    if "value" in table and "values" in table:
        raise BadCard(f"{inside}: value and values are both given, expected one of them")
    values = _values(inside, table.get("values", table.get("value", index)))
    return LabelClass(
        table["name"], values, _colour(inside, table["colour"]) if "colour" in table else drawn_colour(index)
    )


def _ignored(where: str, given: Any) -> tuple[int, ...]:
    if given is None:
        return (IGNORED,)
    return _values(f"{where}: ignored", list(given.values()) if isinstance(given, dict) else given, least=0)


def _values(where: str, given: Any, least: int = 1) -> tuple[int, ...]:
    values = given if isinstance(given, list) else [given]
    if len(values) < least or not all(_is_byte(value) for value in values):
        raise BadCard(f"{where}: value {given!r}, expected whole numbers from 0 to 255")
    return tuple(values)


def _colour(where: str, given: Any) -> Colour:
    if not isinstance(given, list) or len(given) != 3 or not all(_is_byte(part) for part in given):
        raise BadCard(f"{where}: colour is {given!r}, expected [red, green, blue], each from 0 to 255")
    return given[0], given[1], given[2]


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


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
    raise UnknownName(
        f"no dataset {text!r}; {hint}; a dataset of your own is a file, e.g. {text}.toml (docs/use/data.md)"
    )


def read_card(path: Path, shipped: bool = False, given: Any = None) -> DatasetCard:
    """The card in the file at `path`, or `given`, the values that `card_values` made of it.

    Raises BadCard naming the file, the key and the nearest valid spelling.
    """
    table = _toml(path) if given is None else given
    values = require(str(path), table, _KEYS, ("image_suffixes", "label_suffix", "splits"))
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


def card_values(card: DatasetCard) -> dict[str, Any]:
    """What the file of a card says, with its name and every class in full: plain values, as `read_card` takes them."""
    values = _toml(Path(card.file))
    classes = [
        {"name": each.name, "values": list(each.values), "colour": list(each.colour)} for each in card.table.classes
    ]
    return {"ignored": list(card.table.ignored), **values, "name": card.name, "classes": classes}


def matched_classes(model: LabelTable, data: LabelTable, by_name: bool = False) -> tuple[int, ...]:
    """The index that every class of `data` has in `model`.

    Raises UsageError unless the names are the same ones in the same order or, with `by_name`, all are known to `model`.
    """
    said = class_difference(model, data, values=False)
    unknown = [name for name in data.names if name not in model.names]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise UsageError(f"the data has class {unknown[0]!r}{more}, which the model does not predict; {said}")
    if said and not by_name:
        raise UsageError(f"the classes differ: {said}; add --map-names to compare classes of the same name")
    return tuple(model.names.index(name) for name in data.names)


def class_difference(one: LabelTable, other: LabelTable, *, values: bool = True) -> str:
    """The first difference of two tables in names, order and, unless left out, values of classes; empty for none."""
    for index in range(max(one.num_classes, other.num_classes)):
        was, now = (table.classes[index : index + 1] for table in (one, other))
        names = [repr(each[0].name) if each else "missing" for each in (was, now)]
        if names[0] != names[1]:
            return f"class {index} was {names[0]} and is {names[1]}"
        if values and was[0].values != now[0].values:
            return f"values of class {names[0]} were {list(was[0].values)} and are {list(now[0].values)}"
    if values and set(one.ignored) != set(other.ignored):
        return f"ignored was {list(one.ignored)} and is {list(other.ignored)}"
    return ""


def _shipped() -> Path:
    return files.root() / "profiles" / "datasets"


def _toml(path: Path) -> dict[str, Any]:
    try:
        return files.read_toml(path)
    except FileNotFoundError:
        raise BadCard(f"{path}: no such file; expected the TOML file of a dataset (docs/use/data.md)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadCard(
            f"{path}: cannot be read: {error}; expected the TOML file of a dataset (docs/use/data.md)"
        ) from error


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
