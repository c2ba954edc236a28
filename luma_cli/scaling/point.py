"""One result as the scaling law sees it: parameters, image tokens, mIoU, and the level that it stands on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Image tokens of any backbone are counted in cells of this many pixels, whatever its own patch or stride.
TOKEN_PIXELS = 16
# Two sizes (or two token counts) are different when they are this far apart: 512 and 518 px are one resolution.
DIFFERENT = 1.15


@dataclass(frozen=True, slots=True)
class Point:
    """One mIoU at one size and resolution.

    params: of the backbone alone. tokens: cells of 16 x 16 pixels in the crop. level: what must be equal for two errors
    to be compared raw (scale, pretraining, series); the law gives each level a factor of its own.
    """

    id: str
    name: str
    params: float
    tokens: float
    miou_percent: float
    level: str = ""
    own: bool = False

    @property
    def error(self) -> float:
        """100 - mIoU, percent."""
        return 100.0 - self.miou_percent

    @property
    def side(self) -> int:
        """Side in pixels of the square crop with as many tokens."""
        return round(TOKEN_PIXELS * math.sqrt(self.tokens))

    def to_json(self) -> dict[str, Any]:
        """Every field, and the side in pixels."""
        return {
            "id": self.id,
            "backbone": self.name,
            "params": self.params,
            "tokens": self.tokens,
            "side": self.side,
            "miou_percent": self.miou_percent,
            "level": self.level,
            "own": self.own,
        }


def tokens_of(height: int, width: int) -> float:
    """Image tokens of a crop.

    >>> tokens_of(512, 512)
    1024.0
    """
    return height * width / TOKEN_PIXELS**2


def distinct(values: Sequence[float]) -> list[float]:
    """The smallest of each cluster of values, ascending; neighbours within 15% are one.

    >>> distinct([1024.0, 1048.0, 1600.0])
    [1024.0, 1600.0]
    """
    found: list[float] = []
    for value in sorted(values):
        if not found or value > DIFFERENT * found[-1]:
            found.append(value)
    return found
