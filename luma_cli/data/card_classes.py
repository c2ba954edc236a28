"""The classes and ignored values in a dataset's card. No torch."""

from __future__ import annotations

import colorsys
from collections import Counter
from typing import Any

from luma_cli.catalogue.reading import require
from luma_cli.data.label_table import IGNORED, LabelClass, LabelTable
from luma_cli.errors import BadCard

Colour = tuple[int, int, int]

_KEYS = {"name": str, "value": object, "values": object, "colour": object}
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
    table = require(inside, given, _KEYS, ("name",))
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
