"""Claim: the pretraining objective moves mIoU more than the architecture does (arXiv 2607.00687, findings).

The estimator is one of matched pairs: two objectives on one architecture, against two architectures of similar size
with one objective, always within one published table, so that head, protocol, crop and schedule are equal. It does not
use the accuracy model, whose variance components answer the same question another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import hypot

from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.findings.evidence_rows import rows_of
from luma_cli.findings.finding import (
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Figure,
    Finding,
    Interval,
    Verdict,
    counted,
    one_line,
)
from luma_cli.findings.pairs import (
    SIZE_TOLERANCE,
    Pair,
    architecture_pairs,
    gap_ratio,
    ids,
    objective_pairs,
    publishers,
    typical_gap,
)
from luma_cli.findings.scores import scores

FEWEST_PAIRS = 8
FEWEST_PUBLISHERS = 4
NAME = "pretraining"
CLAIM = "The pretraining objective moves mIoU more than the architecture does."
RULE = one_line(
    f"""
    Typical gap (root mean square, mIoU points) between two objectives on one architecture, over that between
    two architectures of different series and similar size (parameters within {SIZE_TOLERANCE}x) with one
    objective; both within one table, so head, protocol, crop and schedule are equal. Supported when the 90%
    interval of the ratio, sources resampled, lies above 1 for fine-tuned heads, contradicted when below 1.
    Needs {FEWEST_PAIRS} pairs of each kind from {FEWEST_PUBLISHERS} sources each. Frozen probes are shown apart
    and do not decide: LUMA is fine-tuned.
    """
)


# What the accuracy model calls the parts of each, for one fine-tuned backbone on one dataset.
_OBJECTIVE = ("kind", "objective", "objective x regime", "objective x dataset", "pretraining data")
_ARCHITECTURE = ("family", "series", "series x dataset", "series x objective", "architecture")


def pretraining(evidence: Sequence[Evidence], dataset: str, effects: Mapping[str, float] | None = None) -> Finding:
    """The claim on the rows of one dataset. effects: the accuracy model's components, cited beside."""
    rows = [row for row in evidence if row.dataset == dataset]
    fine_tuned = _kinds(rows, "fine-tuned")
    frozen = _kinds(rows, "frozen")
    ratio, missing = _ratio(*fine_tuned)
    verdict = _verdict(ratio, missing)
    title = DATASET_TITLES.get(dataset, dataset)
    return Finding(
        name=NAME,
        claim=CLAIM,
        rule=RULE,
        verdict=verdict,
        because=_because(verdict, missing, title),
        figures=(
            *_figures(*fine_tuned, f"fine-tuned, {title}", decides=True),
            *_figures(*frozen, f"frozen, {title}", decides=False),
        ),
        settle=() if verdict != UNDECIDED else _settle(dataset),
        notes=(
            "published checkpoints of two objectives mostly saw different data too: a gap is of both together",
            "the paper compares under one head of its own: published spread at ViT-B is about 20 points frozen, 1 to 4 "
            "fine-tuned",
            *_beside(effects or {}),
        ),
        rows=rows_of(rows, {each for pairs in (*fine_tuned, *frozen) for each in ids(pairs)}),
    )


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


def _kinds(rows: Sequence[Evidence], regime: str) -> tuple[list[Pair], list[Pair]]:
    found = scores(row for row in rows if row.regime == regime)
    return objective_pairs(found), architecture_pairs(found)


def _ratio(objectives: Sequence[Pair], architectures: Sequence[Pair]) -> tuple[Interval | None, str]:
    """The ratio of gaps, and what is missing before it may decide."""
    missing = [
        f"{counted(len(pairs), 'pair')} of {kind} from {counted(publishers(pairs), 'source')}"
        for pairs, kind in ((objectives, "objectives"), (architectures, "architectures"))
        if len(pairs) < FEWEST_PAIRS or publishers(pairs) < FEWEST_PUBLISHERS
    ]
    return gap_ratio(objectives, architectures), " and ".join(missing)


def _verdict(ratio: Interval | None, missing: str) -> Verdict:
    if ratio is None or missing:
        return UNDECIDED
    return SUPPORTED if ratio.above(1) else CONTRADICTED if ratio.below(1) else UNDECIDED


def _because(verdict: Verdict, missing: str, title: str) -> str:
    if missing:
        return f"only {missing} on {title}, fine-tuned; needs {FEWEST_PAIRS} from {FEWEST_PUBLISHERS} of each kind"
    if verdict == UNDECIDED:
        return "the interval of the ratio includes 1"
    more = "more" if verdict == SUPPORTED else "less"
    return f"on {title}, fine-tuned, two objectives differ {more} than two architectures"


def _figures(
    objectives: Sequence[Pair], architectures: Sequence[Pair], where: str, decides: bool
) -> tuple[Figure, Figure, Figure]:
    def gap(pairs: Sequence[Pair], kind: str) -> Figure:
        counts = f"{counted(len(pairs), 'pair')}, {counted(publishers(pairs), 'source')}"
        what = f"gap between two {kind}, {where}"
        return Figure(what, typical_gap(pairs), "points", counts, "" if pairs else "no such pair", False, digits=1)

    ratio, missing = _ratio(objectives, architectures)
    counts = counted(publishers([*objectives, *architectures]), "source")
    return (
        gap(objectives, "objectives"),
        gap(architectures, "architectures"),
        Figure(f"ratio of the two, {where}", ratio, "x", counts, missing if ratio is None else "", decides),
    )


def _settle(dataset: str) -> tuple[str, ...]:
    return tuple(
        f"luma train {backbone} --data {dataset}"
        for backbone in ("vit_b.dinov3", "vit_b.mae", "vit_b.in21k", "convnext_b.dinov3", "swin_b.in22k")
    )
