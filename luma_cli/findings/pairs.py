"""Matched pairs of figures, and the typical gap between the two of a pair with an interval clustered by publisher."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from luma_cli.findings.finding import Interval
from luma_cli.findings.resample import cluster_interval
from luma_cli.findings.scores import Score

if TYPE_CHECKING:
    from luma_cli.findings.resample import Numbers

# Parameters of two backbones of similar size differ by at most this factor: ViT-S 22 M stands beside Swin-T 28 M.
SIZE_TOLERANCE = 1.3


@dataclass(frozen=True, slots=True)
class Pair:
    """Two scores of one cell. share: how much of its two figures this pair stands for.

    A figure with n partners gives each 1 / (n + 1), so that k figures that are all paired sum to k - 1: the degrees of
    freedom that they carry, however many pairs they make.
    """

    first: Score
    second: Score
    share: float

    @property
    def gap(self) -> float:
        """Difference in mIoU points, the first minus the second."""
        return self.first.miou_percent - self.second.miou_percent


def objective_pairs(scores: Iterable[Score]) -> list[Pair]:
    """Two pretraining objectives on one architecture, in one table."""
    return _pairs(scores, lambda score: score.shape, lambda a, b: a.objective != b.objective)


def architecture_pairs(scores: Iterable[Score]) -> list[Pair]:
    """Two architectures of different series and similar size with one objective on the same data, in one table."""
    return _pairs(
        scores,
        lambda score: (score.objective, score.data),
        lambda a, b: a.series != b.series and a.shape != b.shape and _similar_size(a, b),
    )


def _similar_size(a: Score, b: Score) -> bool:
    if a.params_m is None or b.params_m is None:
        return False
    return max(a.params_m, b.params_m) <= SIZE_TOLERANCE * min(a.params_m, b.params_m)


def _pairs(
    scores: Iterable[Score], fixed: Callable[[Score], Hashable], differ: Callable[[Score, Score], bool]
) -> list[Pair]:
    groups: dict[Hashable, list[Score]] = defaultdict(list)
    for score in scores:
        groups[score.cell, fixed(score)].append(score)
    found = [(a, b) for group in groups.values() for a, b in combinations(group, 2) if differ(a, b)]
    partners = Counter(id(score) for pair in found for score in pair)
    return [Pair(a, b, 1 / (partners[id(a)] + 1) + 1 / (partners[id(b)] + 1)) for a, b in found]


def typical_gap(pairs: Sequence[Pair]) -> Interval | None:
    """Root mean square gap in mIoU points, each figure counting once; publishers are resampled."""
    import numpy as np

    share, square = _arrays(pairs)

    def gap(weights: Numbers) -> Numbers:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(weights @ (share * square) / (weights @ share))

    return cluster_interval([pair.first.publisher for pair in pairs], gap)


def gap_ratio(above: Sequence[Pair], below: Sequence[Pair]) -> Interval | None:
    """Typical gap of the pairs `above` over that of `below`; publishers of both are resampled together."""
    import numpy as np

    share, square = _arrays([*above, *below])
    is_above = np.arange(len(share)) < len(above)

    def ratio(weights: Numbers) -> Numbers:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = [weights @ (share * square * side) / (weights @ (share * side)) for side in (is_above, ~is_above)]
            found: Numbers = np.sqrt(mean[0] / mean[1])
        return found

    return cluster_interval([pair.first.publisher for pair in (*above, *below)], ratio) if above and below else None


def _arrays(pairs: Sequence[Pair]) -> tuple[Numbers, Numbers]:
    import numpy as np

    return np.array([pair.share for pair in pairs]), np.array([pair.gap**2 for pair in pairs])


def publishers(pairs: Iterable[Pair]) -> int:
    """How many publishers the pairs come from."""
    return len({pair.first.publisher for pair in pairs})


def ids(pairs: Iterable[Pair]) -> set[str]:
    """Ids of the evidence in the pairs."""
    return {each for pair in pairs for score in (pair.first, pair.second) for each in score.ids}
