"""What tells segmenters apart for their speed: size, arithmetic intensity, image side, family, architecture.

All in logs. Shapes: n segmenters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SIDE = re.compile(r"(_\d{3,4})+$")
# Centres of the shipped table in GMACs, million activations and pixels: slopes turn about them.
_CENTRES = (4.5, 12.0, 245.0)


@dataclass(frozen=True, slots=True)
class Features:
    """Of n segmenters. macs, activations: counts of timm's classifier, to which the head adds multiply-adds. side:
    pixels. families, stems: names by which effects are shared; segmenters with an empty one share nothing.
    """

    macs: Floats
    activations: Floats
    side: Floats
    families: Sequence[str]
    stems: Sequence[str]

    def slopes(self) -> Floats:
        """(n, 3): log size (mean of the logs of multiply-adds and activations), log intensity (their ratio), log side;
        zero at the centre of the shipped table.
        """
        import numpy as np

        gmacs, activations, side = _CENTRES
        macs, outputs = np.log(self.macs / 1e9 / gmacs), np.log(self.activations / 1e6 / activations)
        return np.stack([(macs + outputs) / 2, macs - outputs, np.log(self.side / side)], axis=1)

    def __getitem__(self, index: Sequence[int]) -> Features:
        """Those at the indices."""
        import numpy as np

        at = np.asarray(index, dtype=int)
        families, stems = [self.families[i] for i in at], [self.stems[i] for i in at]
        return Features(self.macs[at], self.activations[at], self.side[at], families, stems)

    def __len__(self) -> int:
        """How many."""
        return len(self.stems)


@cache
def stem_of(architecture: str) -> str:
    """The architecture without the size it was made for: the same network, counted anew at each size.

    >>> stem_of("vit_base_patch16_384"), stem_of("convnext_base"), stem_of("swinv2_base_window12to24_192to384")
    ('vit_base_patch16', 'convnext_base', 'swinv2_base_window12to24_192to384')
    """
    return _SIDE.sub("", architecture)


def same(one: Sequence[str], other: Sequence[str]) -> Floats:
    """(n, m): 1 where the names are equal and not empty, else 0."""
    import numpy as np

    codes = {name: number for number, name in enumerate(dict.fromkeys([*one, *other])) if name}
    left = np.array([codes.get(name, -1) for name in one])
    right = np.array([codes.get(name, -2) for name in other])
    equal: Floats = (left[:, None] == right[None, :]).astype(float)
    return equal
