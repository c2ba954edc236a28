"""What a dataset is, as a TOML file says it: folders, how files pair, and what values and colours of labels mean.

The shipped ones are in `profiles/datasets/`; a dataset of the user's own is a file of the same form (docs/use/data.md).
A label file holds values; a label map holds class indices 0 .. C - 1, and IGNORED where a pixel does not count.
"""

from __future__ import annotations

import colorsys
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from luma_cli import files
from luma_cli.catalogue.reading import nearest, require
from luma_cli.errors import BadCard, UnknownName, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


IGNORED = 255
MAX_CLASSES = 254
_NUM_VALUES = 256

Colour = tuple[int, int, int]
# In quotes, because cards are read by commands that need no numpy.
Labels: TypeAlias = "NDArray[np.uint8]"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class LabelClass:
    """A class: its name, the values of a label file that mean it, and its colour (red, green, blue; 0 to 255)."""

    name: str
    values: tuple[int, ...]
    colour: Colour


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Classes in the order of their indices, and the values that mean "does not count".

    by_colour: whether every class came with its colour, so that an RGB label file can be read; ignored_colours: those
    of such a file that do not count. Neither is part of what the classes are.
    """

    classes: tuple[LabelClass, ...]
    ignored: tuple[int, ...] = (IGNORED,)
    by_colour: bool = field(default=False, compare=False)
    ignored_colours: tuple[Colour, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Raise BadCard for no classes, too many, a value out of 0 .. 255 or one with two meanings."""
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise BadCard(f"{len(self.classes)} classes, expected 1 to {MAX_CLASSES}")
        meanings = [(value, repr(each.name)) for each in self.classes for value in each.values]
        meanings += [(value, "`ignored`") for value in self.ignored]
        if strange := [value for value, _ in meanings if not 0 <= value < _NUM_VALUES]:
            raise BadCard(f"label value {strange[0]}, expected 0 to {_NUM_VALUES - 1}")
        if (twice := _twice(value for value, _ in meanings)) is not None:
            both = " and ".join(meaning for value, meaning in meanings if value == twice)
            also = "; with ignored = [] every pixel counts" if twice in self.ignored else ""
            raise BadCard(f"label value {twice} is given two meanings, {both}, expected one{also}")

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the indices."""
        return tuple(each.name for each in self.classes)

    @property
    def colours(self) -> dict[Colour, int]:
        """The value that each colour of an RGB label file stands for; empty where not every class has a colour."""
        if not self.by_colour:
            return {}
        ignored = dict.fromkeys(self.ignored_colours, (*self.ignored, IGNORED)[0])
        return ignored | {each.colour: each.values[0] for each in self.classes}

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
        lookup[: self.num_classes] = [each.values[0] for each in self.classes]
        decoded: Labels = lookup[labels]
        return decoded


_CLASS_KEYS = {"name": str, "value": object, "values": object, "colour": object}
_EXAMPLE = 'classes = ["road", "car"], or tables { name = "road", value = 7, colour = [128, 64, 128] }'
_GOLDEN = 0.6180339887498949


def read_table(where: str, classes: Any, ignored: Any) -> LabelTable:
    """The table of `classes` (names or tables) and `ignored` (a value or colour, several in a list, or name = value).

    A class without a value has its place in the list as value, one without a colour gets a drawn one. Without `ignored`
    it is 255, unless a class has that value. Raises BadCard, naming `where`.
    """
    if not isinstance(classes, list) or not classes:
        raise BadCard(f"{where}: classes is {'missing' if classes is None else repr(classes)}, expected {_EXAMPLE}")
    read = tuple(_class(f"{where}: classes[{index}]", index, each) for index, each in enumerate(classes))
    if twice := _twice(each.name for each in read):
        raise BadCard(f"{where}: two classes are called {twice!r}, expected different names")
    coloured = [each.colour for each, given in zip(read, classes, strict=True) if "colour" in given]
    entries = list(ignored.values()) if isinstance(ignored, dict) else ignored
    entries = entries if isinstance(entries, list) else [] if entries is None else [entries]
    colours = tuple(_colour(f"{where}: ignored", each) for each in entries if isinstance(each, list))
    values = _values(f"{where}: ignored", [each for each in entries if not isinstance(each, list)])
    if colours and len(coloured) < len(read):
        raise BadCard(f"{where}: ignored has colours, but not every class has one; add colour = [red, green, blue]")
    if colours and (same := _twice((*coloured, *colours))):
        raise BadCard(f"{where}: colour {list(same)} is given two meanings, expected one")
    if ignored is None or (colours and not values):
        values = () if any(IGNORED in each.values for each in read) else (IGNORED,)
    if colours and not values:
        raise BadCard(f"{where}: ignored has colours alone and 255 is a class; add a value of no class to ignored")
    # A copy of the card that has drawn colours written out is read as the card is.
    by_colour = len(coloured) == len(read) and all(each.colour != drawn_colour(i) for i, each in enumerate(read))
    try:
        return LabelTable(read, values, by_colour=by_colour, ignored_colours=colours)
    except BadCard as error:
        raise BadCard(f"{where}: {error}") from error


def drawn_colour(index: int) -> Colour:
    """A colour for the class `index`; different for every index below 254, neighbours in different hues."""
    hue = (index * _GOLDEN) % 1.0
    saturation, value = (0.85, 0.6, 0.95)[index % 3], (0.95, 0.75, 0.55)[index // 3 % 3]
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, saturation, value))
    return red, green, blue


def _twice(given: Iterable[_T]) -> _T | None:
    """The first that occurs more than once."""
    return next((each for each, count in Counter(given).items() if count > 1), None)


def _class(where: str, index: int, given: Any) -> LabelClass:
    table = require(where, {"name": given} if isinstance(given, str) else given, _CLASS_KEYS, ("name",))
    if not table["name"].strip():
        raise BadCard(f"{where}: the name is empty, expected text")
    if "value" in table and "values" in table:
        raise BadCard(f"{where}: value and values are both given, expected one of them")
    given_values = table.get("values", table.get("value", index))
    if not (values := _values(where, given_values if isinstance(given_values, list) else [given_values])):
        raise BadCard(f"{where}: value [], expected whole numbers from 0 to 255")
    return LabelClass(
        table["name"], values, _colour(where, table["colour"]) if "colour" in table else drawn_colour(index)
    )


def _values(where: str, given: list[Any]) -> tuple[int, ...]:
    if wrong := [value for value in given if not _is_byte(value)]:
        raise BadCard(f"{where}: value {wrong[0]!r}, expected whole numbers from 0 to 255")
    return tuple(given)


def _colour(where: str, given: Any) -> Colour:
    if not isinstance(given, list) or len(given) != 3 or not all(map(_is_byte, given)):
        raise BadCard(f"{where}: colour is {given!r}, expected [red, green, blue], each from 0 to 255")
    return given[0], given[1], given[2]


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


SPLITS = ("train", "val", "test")
_MOST_IMAGES = 1 << 40
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_KEYS = {
    **dict.fromkeys(("name", "title", "licence", "folder", "image_prefix", "label_prefix", "label_suffix"), str),
    **dict.fromkeys(("sources", "archives", "image_suffixes"), list),
    **dict.fromkeys(("classes", "ignored", "val_share"), object),
    "splits": dict,
}
_SPLIT_KEYS = {"images": str, "labels": str, "list": str, "count": object, "recursive": bool}


@dataclass(frozen=True, slots=True)
class SplitCard:
    """One split: its folders, relative to the dataset's own. count: official number of images, 0 for unknown.

    recursive: whether files of folders below belong to it; a label then lies in the folder of the same name. list: the
    text file that names its images, one a line, relative to the dataset's folder; empty for all of them.
    """

    name: str
    images: str
    labels: str
    count: int = 0
    recursive: bool = False
    list: str = ""


@dataclass(frozen=True, slots=True)
class DatasetCard:
    """A dataset as its file describes it.

    archives: names of the official archives. folder: the one that everything is in, inside the archive, empty for none.
    An image is called image_prefix + stem + one of image_suffixes, its label file label_prefix + stem + label_suffix.
    val_share: how much of the training images is for validation, 0 where `val` has files of its own. file: where the
    card was read. shipped: whether it came with luma, so that the counts of its splits are official.
    """

    name: str
    title: str
    table: LabelTable
    splits: Mapping[str, SplitCard]
    image_suffixes: tuple[str, ...]
    label_suffix: str
    image_prefix: str = ""
    label_prefix: str = ""
    val_share: float = 0.0
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
        return read_card(Path(os.path.expanduser(text)).absolute())
    near = nearest(text, card_names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected {' or '.join(card_names())}"
    raise UnknownName(
        f"no dataset {text!r}; {hint}; a dataset of your own is a file, e.g. {text[:40]}.toml (docs/use/data.md)"
    )


def read_card(path: Path, shipped: bool = False, kept: Mapping[str, Any] | None = None) -> DatasetCard:
    """The card in the file at `path`, or as `card_values` kept it.

    Raises BadCard naming the file, the key and the nearest valid spelling.
    """
    given = _toml(path) if kept is None else dict(kept)
    values = require(str(path), given, _KEYS, ("image_suffixes", "label_suffix", "splits"))
    name = values.setdefault("name", path.stem)
    if not _NAME.fullmatch(name):
        raise BadCard(f"{path}: name is {name!r}, expected letters, digits, _ and -; add name = ...")
    table = read_table(str(path), values.pop("classes", None), values.pop("ignored", None))
    splits = _splits(path, values.pop("splits"), values.get("val_share"))
    for archive in values.get("archives", ()):
        if not archive.endswith(".zip") or archive != Path(archive).name or "\\" in archive:
            raise BadCard(f"{path}: archive {archive!r}, expected the name of a .zip file, without folders")
    values["folder"] = _inner_path(path, "folder", values.get("folder", ""))
    _check_names(path, values, splits)
    plain: dict[str, Any] = {key: tuple(each) if isinstance(each, list) else each for key, each in values.items()}
    return DatasetCard(**{"title": name, **plain}, table=table, splits=splits, file=str(path), shipped=shipped)


def card_values(card: DatasetCard) -> dict[str, Any]:
    """What the file of a card says, with its name and every class's values: plain values, as `read_card` takes them."""
    values = files.read_toml(Path(card.file))
    classes = [{"name": each.name, "values": list(each.values)} for each in card.table.classes]
    for kept, said, each in zip(classes, values["classes"], card.table.classes, strict=True):
        if isinstance(said, dict) and "colour" in said:  # a drawn one is drawn again; RGB labels are read by given ones
            kept["colour"] = list(each.colour)
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
    except BadCard as error:
        raise BadCard(f"{error}; expected the TOML file of a dataset (docs/use/data.md)") from error


def _splits(path: Path, tables: Mapping[str, Any], val_share: Any) -> dict[str, SplitCard]:
    require(f"{path}: [splits]", tables, dict.fromkeys(SPLITS, dict), ())
    if not tables:
        raise BadCard(f"{path}: no split; add a table [splits.train] with images = ... and labels = ...")
    splits = {name: _split(path, name, tables[name]) for name in SPLITS if name in tables}
    if val_share is None:
        return splits
    if not isinstance(val_share, float) or not 0 < val_share < 1:
        raise BadCard(f"{path}: val_share is {val_share!r}, expected a share such as 0.1")
    if "val" in splits or "train" not in splits:
        raise BadCard(f"{path}: val_share takes images from [splits.train], expected that split and no [splits.val]")
    if splits["train"].count:
        raise BadCard(f"{path}: count is that of a split, which val_share divides; leave count out of [splits.train]")
    return {"train": splits["train"], "val": replace(splits["train"], name="val"), **splits}


def _split(path: Path, name: str, table: Any) -> SplitCard:
    where = f"{path}: [splits.{name}]"
    values = require(where, table, _SPLIT_KEYS, ("images", "labels"))
    count = values.get("count", 0)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count < _MOST_IMAGES:
        raise BadCard(f"{where}: count is {count!r}, expected a number of images, or leave it out")
    values |= {key: _inner_path(path, key, values[key]) for key in ("images", "labels", "list") if key in values}
    return SplitCard(name, **values)


def _inner_path(path: Path, key: str, value: str) -> str:
    """A path inside the dataset, `.` as empty text. Raises BadCard for one that leads out of it."""
    inner = PurePosixPath(value)
    if inner.is_absolute() or ".." in inner.parts or "\\" in value or ":" in value or "\0" in value:
        raise BadCard(f"{path}: {key} is {value!r}, expected a path inside the dataset, with / and without ..")
    return "/".join(inner.parts)


def _check_names(path: Path, values: Mapping[str, Any], splits: Mapping[str, SplitCard]) -> None:
    """Raises BadCard when a suffix is empty, or images and labels of one folder would have the same names."""
    suffixes, suffix = values["image_suffixes"], values["label_suffix"]
    if not suffixes or not all((*suffixes, suffix)):
        raise BadCard(f'{path}: a suffix is empty, expected image_suffixes = [".jpg"] and label_suffix = ".png" alike')
    prefixes = values.get("image_prefix", ""), values.get("label_prefix", "")
    if "/" in "".join(prefixes):
        raise BadCard(
            f"{path}: a prefix has a slash, expected the beginning of a file's name; folders belong to a split"
        )
    for split in splits.values():
        if split.images == split.labels and suffix in suffixes and prefixes[0] == prefixes[1]:
            raise BadCard(
                f"{path}: [splits.{split.name}]: images and labels share the folder {split.images or '.'!r} "
                f"and the suffix {suffix!r}, expected one of them to differ"
            )
