"""A curve as one short line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = "_.-~=+*#"


def sparkline(values: Sequence[float], width: int = 24, *, plain: bool = False) -> str:
    """Means of `values` over `width` equal stretches, from the lowest to the highest; `!` where one is not finite.

    plain: in ASCII, for terminals that know no more.

    >>> sparkline([0.0, 1.0, 2.0, 3.0], plain=True)
    '_-=#'
    """
    marks = _PLAIN if plain else _BLOCKS
    count = min(width, len(values))
    parts = [values[len(values) * at // count : len(values) * (at + 1) // count] for at in range(count)]
    means = [math.fsum(part) / len(part) if all(map(math.isfinite, part)) else math.nan for part in parts]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join("!" if math.isnan(mean) else marks[_level(mean, low, high)] for mean in means)


def _level(value: float, low: float, high: float) -> int:
    return 0 if high <= low else min(len(_BLOCKS) - 1, int((value - low) / (high - low) * len(_BLOCKS)))
