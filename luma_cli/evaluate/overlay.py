"""Pictures of predictions: a label map over its image, and the legend of the classes that were seen. No torch.

H W pixels.
"""

from __future__ import annotations

import csv
import errno
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from luma_cli import files
from luma_cli.catalogue.datasets import Labels, LabelTable
from luma_cli.errors import BadSample, DataError, UsageError
from luma_cli.to_json import to_json

INK, MUTED, RULE, PAPER = (28, 30, 34), (110, 114, 122), (226, 228, 232), (255, 255, 255)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_MORE = "..."


def font(size: int) -> Font:
    """Pillow's own typeface, letters of about `size` pixels."""
    return ImageFont.load_default(size)


def text_width(text: str, letters: Font) -> int:
    """Width of a line in pixels, rounded up."""
    return int(letters.getlength(text) + 0.999)


def fitted(text: str, letters: Font, width: int) -> str:
    """The text, or as much of its beginning as fits into `width` pixels with dots behind it."""
    text = " ".join(text.split())
    if text_width(text, letters) <= width:
        return text
    kept = len(text)
    while kept and text_width(text[:kept].rstrip() + _MORE, letters) > width:
        kept -= 1
    return text[:kept].rstrip() + _MORE


_TEXT = 26  # pixels; twice a screen's usual 13, for screens of fine resolution
_MARGIN, _ROW, _SWATCH, _BAR, _SHARE, _GAP = 36, 44, 30, 320, 120, 22
_WIDEST_NAME = 560


@dataclass(frozen=True, slots=True)
class Entry:
    """One class in the images. values: in the dataset's own label files. share: of all pixels, 0 to 1."""

    index: int
    name: str
    values: tuple[int, ...]
    colour: tuple[int, int, int]
    pixels: int
    share: float


def count_pixels(labels: Labels, num_classes: int) -> NDArray[np.int64]:
    """Pixels of each class [C] in a label map [H, W]."""
    return np.bincount(labels.reshape(-1), minlength=num_classes)[:num_classes].astype(np.int64)


def entries(table: LabelTable, counts: NDArray[np.int64]) -> list[Entry]:
    """Every class of the table, the one with most pixels first, in the table's order among equals."""
    total = int(counts.sum())
    found = [
        Entry(index, each.name, each.values, each.colour, int(count), int(count) / total if total else 0.0)
        for index, (each, count) in enumerate(zip(table.classes, counts, strict=True))
    ]
    return sorted(found, key=lambda entry: (-entry.pixels, entry.index))


def percent(share: float) -> str:
    """A share for people: `43 %`, `2.1 %`, `< 0.1 %`."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.1f} %"


def legend_csv(found: Sequence[Entry]) -> str:
    """All classes, one line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "name", "red", "green", "blue", "pixels", "share"])
    writer.writerows([each.index, each.name, *each.colour, each.pixels, f"{each.share:.6g}"] for each in found)
    return text.getvalue()


def legend_json(found: Sequence[Entry], **facts: Any) -> str:
    """All classes, with `facts` about the run and the images. Schema 1."""
    content = to_json({"schema": 1, **facts, "classes": found})
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def draw_legend(found: Sequence[Entry], title: str) -> Image.Image:
    """The classes that were seen, most pixels first, with bars of their shares; below, how many were not seen."""
    seen = [each for each in found if each.pixels]
    absent = len(found) - len(seen)
    note = f"{absent} of {len(found)} classes {'was' if absent == 1 else 'were'} not seen" if absent else ""
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


LEAST_SIDE = 384  # of the longer side; smaller images are enlarged by a whole factor, else no text fits below
_BORDER, _BORDER_OPACITY = (255, 255, 255), 215
_MOST_LINES = 4


def palette_image(labels: Labels, table: LabelTable) -> Image.Image:
    """The label map [H, W] as an image of mode P: pixel values are class indices, shown in the class colours."""
    image = Image.fromarray(labels).convert("P")
    image.putpalette([part for each in table.classes for part in each.colour])
    return image


def draw_overlay(
    image: NDArray[np.uint8], labels: Labels, table: LabelTable, found: Sequence[Entry], opacity: float = 0.5
) -> Image.Image:
    """The image [H, W, 3] under the colours of its classes, with the legend of those that are present.

    opacity: of the colours, 0 to 1. found: classes with their shares, as `entries` orders them.
    """
    base, shown = Image.fromarray(image), palette_image(labels, table).convert("RGB")
    blended = Image.blend(base, shown, opacity)
    factor = max(1, round(LEAST_SIDE / max(blended.size)))
    if factor > 1:
        blended = blended.resize((blended.width * factor, blended.height * factor), Image.Resampling.NEAREST)
        labels = labels.repeat(factor, axis=0).repeat(factor, axis=1)
    # A line that is thin but visible when the picture fills a screen.
    edge = borders(labels, max(1, round(min(blended.size) / 500)))
    blended.paste(_BORDER, mask=Image.fromarray(edge * np.uint8(_BORDER_OPACITY)))
    return _with_legend(blended, [each for each in found if each.pixels])


def check_opacity(opacity: float) -> float:
    """The opacity. Raises UsageError unless it lies in 0 to 1."""
    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity is {opacity:g}, expected 0 (the image alone) to 1 (the colours alone)")
    return opacity


def borders(labels: Labels, width: int) -> NDArray[np.bool_]:
    """The borders between classes [H, W]: lines of about `width` pixels."""
    edge = np.zeros(labels.shape, dtype=np.bool_)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    for number in range(1, width):  # one pixel wider, to the upper left and to the lower right in turns
        thin, grown = (edge, edge.copy()) if number % 2 == 0 else (edge[::-1, ::-1], edge[::-1, ::-1].copy())
        grown[:, 1:] |= thin[:, :-1]
        grown[1:] |= thin[:-1]
        edge = grown if number % 2 == 0 else grown[::-1, ::-1]
    return edge


# One class of the legend below: colour, text, and the left and line where its swatch and text start.
_Chip = tuple[tuple[int, int, int] | None, str, int, int]


def _with_legend(picture: Image.Image, seen: Sequence[Entry]) -> Image.Image:
    size = max(14, round(min(max(picture.size) / 40, 64)))
    letters = font(size)
    chips = _laid_out(seen, letters, size, picture.width)
    line_height = round(1.7 * size)
    height = (max((line for *_, line in chips), default=0) + 1) * line_height + size
    whole = Image.new("RGB", (picture.width, picture.height + height), PAPER)
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for colour, text, left, line in chips:
        middle = picture.height + size // 2 + line * line_height + line_height // 2
        if colour is not None:
            half = round(0.45 * size)
            box = (left, middle - half, left + 2 * half, middle + half)
            draw.rounded_rectangle(box, max(2, size // 6), colour, outline=RULE, width=max(1, size // 18))
            left += round(1.3 * size)
        draw.text((left, middle), text, INK if colour else MUTED, letters, anchor="lm")
    return whole


def _laid_out(seen: Sequence[Entry], letters: Font, size: int, width: int) -> list[_Chip]:
    """Classes in lines of text, as many as fit into a few lines, and how many more there are."""
    margin, gap, swatch = size // 2, round(1.2 * size), round(1.3 * size)
    chips: list[_Chip] = []
    left, line = margin, 0
    for number, entry in enumerate(seen):
        text = fitted(f"{entry.name} {percent(entry.share)}", letters, width - 2 * margin - swatch)
        rest = f"and {len(seen) - number} more"
        needed = swatch + text_width(text, letters)
        if left > margin and left + needed > width - margin:
            left, line = margin, line + 1
        room = needed if number == len(seen) - 1 else needed + gap + text_width(rest, letters)
        if line == _MOST_LINES - 1 and left + room > width - margin and number:
            return [*chips, (None, rest, left, line)]
        chips.append((entry.colour, text, left, line))
        left += needed + gap
    return chips


# Of doubt, from sure to unsure: dark blue, violet, red, orange, pale yellow.
_DOUBT = np.array([(24, 20, 70), (96, 30, 118), (188, 55, 84), (249, 142, 8), (252, 255, 164)], dtype=np.float32)
_UNKNOWN_EDGE = (64, 224, 255)


def write_doubt(
    out: Path, name: str, image: NDArray[np.uint8], scores: NDArray[np.float32], truth: NDArray[np.uint8]
) -> Path:
    """Write OUT/NAME_doubt.png and return it. Raises DataError when it cannot be written."""
    file = out / f"{name}_doubt.png"
    write_picture(file, draw_doubt(image, scores, truth))
    return file


def draw_doubt(image: NDArray[np.uint8], scores: NDArray[np.float32], truth: NDArray[np.uint8]) -> Image.Image:
    """The image [H, W, 3] beside how unsure the model is of each pixel [H, W], unknown objects outlined.

    Colours run from the 1st to the 99th percentile of the image's scores; the scale below gives both. truth: 0 known,
    1 unknown, 255 void, which is drawn grey.
    """
    low, high = (float(value) for value in np.percentile(scores, (1, 99)))
    place = np.clip((scores - low) / max(high - low, 1e-12), 0, 1) * (len(_DOUBT) - 1)
    first = np.minimum(place.astype(np.int64), len(_DOUBT) - 2)
    share = (place - first)[..., None]
    heat = ((1 - share) * _DOUBT[first] + share * _DOUBT[first + 1] + 0.5).astype(np.uint8)
    heat[truth == 255] = 90
    edge = borders((truth == 1).astype(np.uint8), max(1, round(min(truth.shape) / 200)))
    both = np.hstack([image, heat])
    both[np.hstack([edge, edge])] = _UNKNOWN_EDGE
    size = max(14, round(min(max(truth.shape) / 40, 40)))
    whole = Image.new("RGB", (both.shape[1], both.shape[0] + 3 * size), PAPER)
    whole.paste(Image.fromarray(both))
    ramp = np.linspace(0, len(_DOUBT) - 1, max(2, truth.shape[1] // 3))
    at = np.minimum(ramp.astype(np.int64), len(_DOUBT) - 2)
    part = (ramp - at)[:, None]
    bar = np.broadcast_to((1 - part) * _DOUBT[at] + part * _DOUBT[at + 1], (size, len(ramp), 3)).astype(np.uint8)
    left, top = truth.shape[1] + size, both.shape[0] + size
    draw, letters = ImageDraw.Draw(whole), font(size)
    words = f"sure ({low:.3g})"
    draw.text((left, top + size // 2), words, INK, letters, anchor="lm")
    left += text_width(words, letters) + size // 2
    whole.paste(Image.fromarray(bar), (left, top))
    draw.text((left + len(ramp) + size // 2, top + size // 2), f"unsure ({high:.3g})", INK, letters, anchor="lm")
    draw.text((size, top + size // 2), "outlined: unknown object", MUTED, letters, anchor="lm")
    return whole


# JPEG keeps colours at full resolution, so that class borders stay sharp.
_FORMATS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG", "compress_level": 6},
    ".jpg": {"format": "JPEG", "quality": 92, "subsampling": 0},
}


def write_picture(path: Path, picture: Image.Image) -> None:
    """Replace the .png or .jpg file at `path`, folder made as needed.

    Raises DataError when it cannot be written, BadSample where its name alone is why.
    """
    encoded = io.BytesIO()
    with _writing(path):
        picture.save(encoded, **_FORMATS[path.suffix])
        files.write_bytes(path, encoded.getvalue())


def write_table(path: Path, text: str) -> None:
    """Replace the text file at `path`. Raises DataError when it cannot be written."""
    with _writing(path):
        files.write_text(path, text)


# What is wrong with one name; other errors would meet every file.
_OF_ONE_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = BadSample if error.errno in _OF_ONE_NAME else DataError
        raise kind(f"{path} cannot be written: {error.strerror or error}; free space or name another --out") from error
