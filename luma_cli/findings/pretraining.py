"""Claim: the pretraining objective moves mIoU more than the architecture does (arXiv 2607.00687, findings).

The estimator is one of matched pairs: two objectives on one architecture, against two architectures of similar size
with one objective, always within one published table, so that head, protocol, crop and schedule are equal. It does not
use the accuracy model, whose variance components answer the same question another way.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import hypot

import numpy as np

from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.findings.finding import (
    SUPPORTED,
    UNDECIDED,
    Figure,
    Finding,
    Interval,
    above,
    below,
    counted,
    judge,
    rows_of,
)
from luma_cli.findings.scores import TableScore, scores
from luma_cli.findings.statistics import Numbers, cluster_interval

FEWEST_PAIRS = 8
FEWEST_PUBLISHERS = 4
# Parameters of two backbones of similar size differ by at most this factor: ViT-S 22 M is compared with Swin-T 28 M.
SIZE_TOLERANCE = 1.3
CLAIM = Finding(
    "pretraining",
    "The pretraining objective moves mIoU more than the architecture does.",
    f"""
    Typical gap (root mean square, mIoU points) between two objectives on one architecture, over that between
    two architectures of different series and similar size (parameters within {SIZE_TOLERANCE}x) with one
    objective; both within one table, so head, protocol, crop and schedule are equal. Supported when the 90%
    interval of the ratio, sources resampled, lies above 1 for fine-tuned heads, contradicted when below 1.
    Needs {FEWEST_PAIRS} pairs of each kind from {FEWEST_PUBLISHERS} sources each. Frozen probes are shown apart
    and do not decide: LUMA is fine-tuned.
    """,
)
# What the accuracy model calls the parts of each, for one fine-tuned backbone on one dataset.
_OBJECTIVE = ("kind", "objective", "objective x regime", "objective x dataset", "pretraining data")
_ARCHITECTURE = ("family", "series", "series x dataset", "series x objective", "architecture")


def pretraining(evidence: Sequence[Evidence], dataset: str, effects: Mapping[str, float] | None = None) -> Finding:
    """The claim on the rows of one dataset. effects: the accuracy model's components, cited beside."""
    rows = [row for row in evidence if row.dataset == dataset]
    title = DATASET_TITLES.get(dataset, dataset)
    by_regime = {}
    for regime in ("fine-tuned", "frozen"):
        found = scores(row for row in rows if row.regime == regime)
        by_regime[regime] = {"objectives": objective_pairs(found), "architectures": architecture_pairs(found)}
    deciding = by_regime["fine-tuned"]
    missing = _missing(deciding)
    ratio = gap_ratio(*deciding.values())
    verdict = judge(not missing and above(ratio, 1), not missing and below(ratio, 1))
    if missing:
        because = f"only {missing} on {title}, fine-tuned; needs {FEWEST_PAIRS} from {FEWEST_PUBLISHERS} of each kind"
    elif verdict == UNDECIDED:
        because = "the interval of the ratio includes 1"
    else:
        more = "more" if verdict == SUPPORTED else "less"
        because = f"on {title}, fine-tuned, two objectives differ {more} than two architectures"
    used = [pair for kinds in by_regime.values() for pairs in kinds.values() for pair in pairs]
    backbones = ("vit_b.dinov3", "vit_b.mae", "vit_b.in21k", "convnext_b.dinov3", "swin_b.in22k")
    return CLAIM.concluded(
        verdict,
        because,
        [figure for regime, kinds in by_regime.items() for figure in _figures(kinds, regime, title)],
        rows_of(rows, {each for pair in used for each in (*pair.first.ids, *pair.second.ids)}),
        settle=(f"luma train {backbone} --data {dataset}" for backbone in backbones),
        notes=(
            "published checkpoints of two objectives mostly saw different data too: a gap is of both together",
            "the paper compares under one head of its own: published spread at ViT-B is about 20 points frozen, 1 to 4 "
            "fine-tuned",
            *_beside(effects or {}),
        ),
    )


def _missing(kinds: Mapping[str, Sequence[MatchedPair]]) -> str:
    """What is too little to decide; empty when there is enough."""
    return " and ".join(
        f"{counted(len(pairs), 'pair')} of {kind} from {counted(_publishers(pairs), 'source')}"
        for kind, pairs in kinds.items()
        if len(pairs) < FEWEST_PAIRS or _publishers(pairs) < FEWEST_PUBLISHERS
    )


def _publishers(pairs: Iterable[MatchedPair]) -> int:
    return len({pair.first.publisher for pair in pairs})


def _figures(kinds: Mapping[str, Sequence[MatchedPair]], regime: str, title: str) -> Iterator[Figure]:
    """The gap of each kind and the ratio of the two."""
    for kind, pairs in kinds.items():
        counts = f"{counted(len(pairs), 'pair')}, {counted(_publishers(pairs), 'source')}"
        what, why_not = f"gap between two {kind}, {regime}, {title}", "" if pairs else "no such pair"
        yield Figure(what, typical_gap(pairs), "points", counts, why_not, decides=False, digits=1)
    ratio = gap_ratio(*kinds.values())
    counts = counted(_publishers(pair for pairs in kinds.values() for pair in pairs), "source")
    why_not = _missing(kinds) if ratio is None else ""
    yield Figure(f"ratio of the two, {regime}, {title}", ratio, "x", counts, why_not, decides=regime == "fine-tuned")


def _beside(effects: Mapping[str, float]) -> list[str]:
    """The accuracy model's own components as a note, in points at 50 mIoU; it sees all tables at once."""
    if not effects:
        return []
    objective, architecture = (
        50 * hypot(*(effects.get(name, 0.0) for name in names)) for names in (_OBJECTIVE, _ARCHITECTURE)
    )
    return [
        f"the accuracy model, over all tables and at 50 mIoU: one standard deviation is {objective:.1f} points between "
        f"objectives with their data, {architecture:.1f} between architectures of one size and year"
    ]


@dataclass(frozen=True, slots=True)
class MatchedPair:
    """Two scores of one cell. share: how much of its two figures this pair accounts for.

    A figure with n partners gives each 1 / (n + 1), so that k figures that are all paired sum to k - 1: the degrees of
    freedom that they carry, however many pairs they make.
    """

    first: TableScore
    second: TableScore
    share: float

    @property
    def square(self) -> float:
        """Squared difference in mIoU points."""
        return (self.first.miou_percent - self.second.miou_percent) ** 2


def objective_pairs(found: Iterable[TableScore]) -> list[MatchedPair]:
    """Two pretraining objectives on one architecture, in one table."""
    return _pairs(found, lambda score: score.shape, lambda a, b: a.objective != b.objective)


def architecture_pairs(found: Iterable[TableScore]) -> list[MatchedPair]:
    """Two architectures of different series and similar size with one objective on the same data, in one table."""

    def differ(a: TableScore, b: TableScore) -> bool:
        if a.series == b.series or a.shape == b.shape or a.params_m is None or b.params_m is None:
            return False
        return max(a.params_m, b.params_m) <= SIZE_TOLERANCE * min(a.params_m, b.params_m)

    return _pairs(found, lambda score: (score.objective, score.data), differ)


def _pairs(
    every: Iterable[TableScore],
    fixed: Callable[[TableScore], Hashable],
    differ: Callable[[TableScore, TableScore], bool],
) -> list[MatchedPair]:
    groups: dict[Hashable, list[TableScore]] = defaultdict(list)
    for score in every:
        groups[score.cell, fixed(score)].append(score)
    found = [(a, b) for group in groups.values() for a, b in combinations(group, 2) if differ(a, b)]
    partners = Counter(id(score) for pair in found for score in pair)
    return [MatchedPair(a, b, 1 / (partners[id(a)] + 1) + 1 / (partners[id(b)] + 1)) for a, b in found]


def typical_gap(pairs: Sequence[MatchedPair]) -> Interval | None:
    """Root mean square gap in mIoU points, each figure counting once; publishers are resampled."""
    return cluster_interval(
        [pair.first.publisher for pair in pairs], lambda weights: np.sqrt(_mean_square(pairs, weights))
    )


def gap_ratio(above: Sequence[MatchedPair], below: Sequence[MatchedPair]) -> Interval | None:
    """Typical gap of the pairs `above` over that of `below`; publishers of both are resampled together."""
    if not above or not below:
        return None
    cut = len(above)
    return cluster_interval(
        [pair.first.publisher for pair in (*above, *below)],
        lambda weights: np.sqrt(_mean_square(above, weights[:, :cut]) / _mean_square(below, weights[:, cut:])),
    )


def _mean_square(pairs: Sequence[MatchedPair], weights: Numbers) -> Numbers:
    """Mean squared gap [draws] of the pairs by weights [draws, pairs]."""
    share, square = np.array([pair.share for pair in pairs]), np.array([pair.square for pair in pairs])
    found: Numbers = weights @ (share * square) / (weights @ share)
    return found
