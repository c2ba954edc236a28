"""Which scale an answer stands on, by a stated rule.

Nearest to LUMA first: own runs, published LUMA, EoMT, other fine-tuned heads, multi-scale figures, frozen probes. The
first of these with a scale that orders at least two figures, doubtful ones not counted, is taken, and of its scales the
one with most figures. Failing that, the first with any.
"""

from __future__ import annotations

from collections.abc import Sequence

from luma_cli.advise.answer import Ranking

# A scale with one figure orders nothing.
LEAST_SUPPORT = 2


def by_preference(rankings: Sequence[tuple[int, Ranking]]) -> list[Ranking]:
    """Rankings that hold anything, in the order of the rule; the first is the one to answer on."""
    held = [(preference, ranking) for preference, ranking in rankings if ranking.rows]
    held.sort(key=lambda each: (each[0], -each[1].num_figures, each[1].scale))
    ordering = [ranking for _, ranking in held if ranking.num_figures >= LEAST_SUPPORT]
    chosen = (ordering or [ranking for _, ranking in held])[:1]
    return chosen + [ranking for _, ranking in held if ranking not in chosen]
