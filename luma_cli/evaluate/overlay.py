"""A label map laid over its image: class colours, borders between classes, and a legend below. No torch.

H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from luma_cli.catalogue.datasets import Labels, LabelTable
from luma_cli.errors import UsageError
from luma_cli.evaluate.legend import Entry, percent
from luma_cli.evaluate.lettering import INK, MUTED, PAPER, RULE, Font, fitted, font, text_width

Mask = NDArray[np.bool_]

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
    edge = borders(labels, border_width(*blended.size))
    blended.paste(_BORDER, mask=Image.fromarray(edge * np.uint8(_BORDER_OPACITY)))
    return _with_legend(blended, [each for each in found if each.pixels])


def check_opacity(opacity: float) -> float:
    """The opacity. Raises UsageError unless it lies in 0 to 1."""
    if not 0 <= opacity <= 1:
        raise UsageError(f"opacity is {opacity:g}, expected 0 (the image alone) to 1 (the colours alone)")
    return opacity


def border_width(width: int, height: int) -> int:
    """Pixels of a line that is thin but seen when the picture fills a screen."""
    return max(1, round(min(width, height) / 500))


def borders(labels: Labels, width: int) -> Mask:
    """Where classes meet [H, W]: lines of about `width` pixels."""
    edge = np.zeros(labels.shape, dtype=np.bool_)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    for number in range(1, width):
        edge = _grown(edge, forward=number % 2 == 0)
    return edge


def _grown(edge: Mask, forward: bool) -> Mask:
    """One pixel wider, to the lower right or the upper left."""
    grown = edge.copy()
    if forward:
        grown[:, 1:] |= edge[:, :-1]
        grown[1:] |= edge[:-1]
    else:
        grown[:, :-1] |= edge[:, 1:]
        grown[:-1] |= edge[1:]
    return grown


@dataclass(frozen=True, slots=True)
class _Chip:
    """One class of the legend below: its swatch and text start at (left, line)."""

    colour: tuple[int, int, int] | None
    text: str
    left: int
    line: int


def _with_legend(picture: Image.Image, seen: Sequence[Entry]) -> Image.Image:
    size = max(14, round(min(max(picture.size) / 40, 64)))
    letters = font(size)
    chips = _laid_out(seen, letters, size, picture.width)
    line = round(1.7 * size)
    height = (max((chip.line for chip in chips), default=0) + 1) * line + size
    whole = Image.new("RGB", (picture.width, picture.height + height), PAPER)
    whole.paste(picture)
    draw = ImageDraw.Draw(whole)
    for chip in chips:
        middle = picture.height + size // 2 + chip.line * line + line // 2
        left = chip.left
        if chip.colour is not None:
            half = round(0.45 * size)
            box = (left, middle - half, left + 2 * half, middle + half)
            draw.rounded_rectangle(box, max(2, size // 6), chip.colour, outline=RULE, width=max(1, size // 18))
            left += round(1.3 * size)
        draw.text((left, middle), chip.text, INK if chip.colour else MUTED, letters, anchor="lm")
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
            return [*chips, _Chip(None, rest, left, line)]
        chips.append(_Chip(entry.colour, text, left, line))
        left += needed + gap
    return chips
