"""When the first is not clearly the best: what is as good within seed noise, and that the cheapest of it wins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# About the spread between seeds of one recipe on ADE20K and Cityscapes: differences below it decide nothing.
TIE_MIOU = 0.3
# A first candidate that is the best in this part of the draws wins alone.
CLEAR_CHANCE = 0.6


@dataclass(frozen=True, slots=True)
class Ties:
    """Indices of candidates. leader: the highest expected mIoU. winner: what is recommended.

    members: all that tie with the leader, itself included, cheapest first; the leader alone when it is clear.
    """

    leader: int
    winner: int
    members: tuple[int, ...]

    @property
    def is_tie(self) -> bool:
        """Whether more than one candidate could as well be the best."""
        return len(self.members) > 1


def ties(
    mious: Sequence[float],
    costs: Sequence[Sequence[float]],
    best: Sequence[float],
    within_miou: float = TIE_MIOU,
    clear: float = CLEAR_CHANCE,
) -> Ties:
    """Who ties for the first place, and who gets it.

    mious: expected, in percent. costs: of each, compared in their order, better small. best: P(best) of each. Equal
    candidates are taken in the order given. Raises ValueError when there is none.

    >>> ties([50.0, 50.2, 48.0], [(1,), (2,), (1,)], [0.4, 0.5, 0.1])
    Ties(leader=1, winner=0, members=(0, 1))
    """
    known = [index for index, miou in enumerate(mious) if not math.isnan(miou)]
    if not known:
        raise ValueError(f"{len(mious)} candidates, none with a known mIoU; expected at least one")
    leader = min(known, key=lambda index: (-mious[index], tuple(costs[index]), index))
    if best[leader] >= clear:
        return Ties(leader, leader, (leader,))
    # Rounded, so that 50.0 is within 0.3 of 50.3, which in floats it is not.
    near = [index for index in known if round(mious[leader] - mious[index], 9) <= within_miou]
    members = sorted(near, key=lambda index: (tuple(costs[index]), -mious[index], index))
    return Ties(leader, members[0], tuple(members))
