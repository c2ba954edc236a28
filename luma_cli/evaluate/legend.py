"""Which classes were seen and how much of the images they cover: as values, a table file and a picture. No torch."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from luma_cli.catalogue.datasets import Labels, LabelTable
from luma_cli.evaluate.lettering import INK, MUTED, PAPER, RULE, fitted, font, text_width

Counts = NDArray[np.int64]

_TEXT = 26  # pixels; twice a screen's usual 13, for screens of fine resolution
_MARGIN, _ROW, _SWATCH, _BAR, _SHARE, _GAP = 36, 44, 30, 320, 120, 22
_WIDEST_NAME = 560


@dataclass(frozen=True, slots=True)
class Entry:
    """One class in the images: index in the label map, name, values of the dataset's own label files, colour."""

    index: int
    name: str
    values: tuple[int, ...]
    colour: tuple[int, int, int]
    pixels: int
    share: float

    def to_json(self) -> dict[str, Any]:
        """share: part of all pixels, 0 to 1."""
        return {
            "index": self.index,
            "name": self.name,
            "values": list(self.values),
            "colour": list(self.colour),
            "pixels": self.pixels,
            "share": self.share,
        }


def count_pixels(labels: Labels, num_classes: int) -> Counts:
    """Pixels of each class [C] in a label map [H, W]."""
    return np.bincount(labels.reshape(-1), minlength=num_classes)[:num_classes].astype(np.int64)


def entries(table: LabelTable, counts: Counts) -> list[Entry]:
    """Every class of the table, the one with most pixels first, in the table's order among equals."""
    total = int(counts.sum())
    found = [
        Entry(index, each.name, each.values, each.colour, int(count), int(count) / total if total else 0.0)
        for index, (each, count) in enumerate(zip(table.classes, counts, strict=True))
    ]
    return sorted(found, key=lambda entry: (-entry.pixels, entry.index))


def percent(share: float) -> str:
    """A share as people read it: `43 %`, `2.1 %`, `< 0.1 %`."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def to_csv(found: Sequence[Entry]) -> str:
    """All classes, one line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "name", "red", "green", "blue", "pixels", "share"])
    writer.writerows([each.index, each.name, *each.colour, each.pixels, f"{each.share:.6g}"] for each in found)
    return text.getvalue()


def to_json(found: Sequence[Entry], **facts: Any) -> str:
    """All classes, with `facts` about the run and the images. Schema 1."""
    classes = [each.to_json() for each in found]
    return json.dumps({"schema": 1, **facts, "classes": classes}, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def draw_legend(found: Sequence[Entry], title: str) -> Image.Image:
    """The classes that were seen, most pixels first, with bars of their shares; how many were not, below."""
    seen = [each for each in found if each.pixels]
    note = _absent_note(len(found) - len(seen), len(found))
    letters, small = font(_TEXT), font(_TEXT - 4)
    widest = max([text_width(each.name, letters) for each in seen], default=0)
    names = min(_WIDEST_NAME, max(widest, 160))
    inner = max(_SWATCH + names + _BAR + _SHARE + 3 * _GAP, text_width(note, small))
    height = 2 * _MARGIN + _ROW + _GAP + len(seen) * _ROW + (_ROW if note else 0)
    picture = Image.new("RGB", (inner + 2 * _MARGIN, height), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN + _ROW // 2), fitted(title, letters, inner), INK, letters, anchor="lm")
    draw.line([(_MARGIN, _MARGIN + _ROW), (_MARGIN + inner, _MARGIN + _ROW)], RULE, 2)
    top = _MARGIN + _ROW + _GAP
    for number, entry in enumerate(seen):
        _draw_row(draw, entry, top + number * _ROW, names, seen[0].share)
    if note:
        draw.text((_MARGIN, top + len(seen) * _ROW + _ROW // 2), note, MUTED, small, anchor="lm")
    return picture


def _draw_row(draw: ImageDraw.ImageDraw, entry: Entry, top: int, names: int, largest: float) -> None:
    letters, middle = font(_TEXT), top + _ROW // 2
    half = _SWATCH // 2
    draw.rounded_rectangle(
        (_MARGIN, middle - half, _MARGIN + _SWATCH, middle + half), 6, entry.colour, outline=RULE, width=1
    )
    left = _MARGIN + _SWATCH + _GAP
    draw.text((left, middle), fitted(entry.name, letters, names), INK, letters, anchor="lm")
    left += names + _GAP
    width = max(3, round(_BAR * entry.share / largest))
    draw.rounded_rectangle((left, middle - 9, left + width, middle + 9), min(4, width // 2), entry.colour)
    draw.text((left + _BAR + _GAP + _SHARE, middle), percent(entry.share), INK, letters, anchor="rm")


def _absent_note(absent: int, total: int) -> str:
    if not absent:
        return ""
    return f"{absent} of {total} classes {'was' if absent == 1 else 'were'} not seen"
