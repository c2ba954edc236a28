"""Claim: the pretraining objective moves mIoU more than the architecture does (arXiv 2607.00687, findings).

Matched pairs: two objectives on one architecture, against two architectures of similar size with one objective, always
within one published table, so that head, protocol, crop and schedule are equal. The paper compares under one head of
its own; published spread at ViT-B is about 20 points with a frozen backbone, 1 to 4 fine-tuned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.findings.finding import Figure, Finding, Interval, above, below, judge, position
from luma_cli.findings.scores import TableScore, pairs, rows_behind, scores
from luma_cli.findings.statistics import Numbers, cluster_interval
from luma_cli.units import counted

FEWEST_PAIRS = 8
FEWEST_PUBLISHERS = 4
# Parameters of two backbones of similar size differ by at most this factor: ViT-S 22 M is compared with Swin-T 28 M.
SIZE_TOLERANCE = 1.3
CLAIM = Finding(
    "pretraining",
    "The pretraining objective moves mIoU more than the architecture does.",
    "Typical (root mean square) mIoU gap between two objectives on one architecture, over that between two "
    f"architectures of similar size (within {SIZE_TOLERANCE}x) with one objective, each within one published table and "
    "fine-tuned: supported where the 90% interval lies above 1, contradicted where below; needs "
    f"{FEWEST_PAIRS} pairs of each kind from {FEWEST_PUBLISHERS} sources.",
    notes=("published weights of two objectives mostly saw different data too: a gap is of both together",),
)
Pair = tuple[TableScore, TableScore]
_TO_TRAIN = ("vit_b.dinov3", "vit_b.mae", "vit_b.in21k", "convnext_b.dinov3", "swin_b.in22k")


def pretraining(evidence: Sequence[Evidence], dataset: str) -> Finding:
    """The claim on the fine-tuned rows of one dataset; frozen probes do not decide, as LUMA is fine-tuned."""
    rows = [row for row in evidence if row.dataset == dataset and row.regime == "fine-tuned"]
    found = scores(rows)
    kinds = {"objectives": objective_pairs(found), "architectures": architecture_pairs(found)}
    used = [pair for some in kinds.values() for pair in some]
    title = DATASET_TITLES.get(dataset, dataset)
    ratio = gap_ratio(*kinds.values())
    missing = _missing(kinds)
    because = f"only {missing} on {title}" if missing else f"the 90% interval of the ratio {position(ratio, 1)}"
    counts = f"{counted(len(used), 'pair')}, {counted(_num_publishers(used), 'source')}"
    what = f"gap between two objectives over gap between two architectures, {title}"
    return CLAIM.concluded(
        judge(not missing and above(ratio, 1), not missing and below(ratio, 1)),
        because,
        [Figure(what, ratio, "x", counts, missing)],
        rows_behind(rows, used),
        [f"luma train {backbone} --data {dataset}" for backbone in _TO_TRAIN],
    )


def objective_pairs(found: Iterable[TableScore]) -> list[Pair]:
    """Two pretraining objectives on one architecture, in one table."""
    return pairs(found, lambda score: (score.cell, score.shape), lambda a, b: a.objective < b.objective)


def architecture_pairs(found: Iterable[TableScore]) -> list[Pair]:
    """Two architectures of different series and similar size with one objective on the same data, in one table."""

    def alike(a: TableScore, b: TableScore) -> bool:
        if a.series >= b.series or a.shape == b.shape or a.params_m is None or b.params_m is None:
            return False
        return max(a.params_m, b.params_m) <= SIZE_TOLERANCE * min(a.params_m, b.params_m)

    return pairs(found, lambda score: (score.cell, score.objective, score.data), alike)


def _missing(kinds: dict[str, list[Pair]]) -> str:
    """What is too little to decide; empty when there is enough."""
    return " and ".join(
        f"{counted(len(found), 'pair')} of {kind} from {counted(_num_publishers(found), 'source')}"
        for kind, found in kinds.items()
        if len(found) < FEWEST_PAIRS or _num_publishers(found) < FEWEST_PUBLISHERS
    )


def _num_publishers(found: Iterable[Pair]) -> int:
    return len({pair[0].publisher for pair in found})


def gap_ratio(over: Sequence[Pair], under: Sequence[Pair]) -> Interval | None:
    """Typical gap of the pairs `over` divided by that of `under`; publishers of both are resampled together."""
    if not over or not under:
        return None
    cut = len(over)
    return cluster_interval(
        [pair[0].publisher for pair in (*over, *under)],
        lambda weights: np.sqrt(mean_square(over, weights[:, :cut]) / mean_square(under, weights[:, cut:])),
    )


def mean_square(found: Sequence[Pair], weights: Numbers) -> Numbers:
    """Mean squared gap [draws] in mIoU points, each figure counting once, by weights [draws, pairs]."""
    share = shares(found)
    gaps = np.array([one.miou_percent - other.miou_percent for one, other in found])
    mean: Numbers = weights @ (share * gaps**2) / (weights @ share)
    return mean


def shares(found: Sequence[Pair]) -> Numbers:
    """How much of its two figures each pair accounts for [pairs].

    A figure with n partners gives each 1 / (n + 1), so that k figures that are all paired sum to k - 1: the degrees of
    freedom that they carry, however many pairs they make.
    """
    partners = Counter(id(score) for pair in found for score in pair)
    return np.array([sum(1 / (partners[id(score)] + 1) for score in pair) for pair in found])
