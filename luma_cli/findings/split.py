"""Claim: the compute-optimal size grows as C^0.83, the image tokens as C^0.2 (arXiv 2607.00687, the 80/20 rule)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from luma_cli.catalogue.heads import HeadConfig
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
from luma_cli.findings.own import own_rows
from luma_cli.scaling.bootstrap import WIDEST
from luma_cli.scaling.law import PAPER

if TYPE_CHECKING:
    from luma_cli.evidence.own_runs import OwnRun
    from luma_cli.scaling.answer import Scaling
    from luma_cli.scaling.bootstrap import ExponentInterval as Told
    from luma_cli.scaling.bootstrap import Exponents


NAME = "split"
CLAIM = f"Of more compute most belongs in parameters: N* grows as C^{PAPER.size}, image tokens T* as C^{PAPER.tokens}."
RULE = one_line(
    f"""
    The law error = E + A N^-a + B T^-b on results of at least 3 sizes and 3 resolutions, residual bootstrap; exponents
    at the cost elasticities of ViT-B at 512 px. Decided where both 90% intervals are at most {WIDEST} wide: supported
    when that of N holds {PAPER.size} and that of T {PAPER.tokens}, contradicted when one does not. Your own runs decide
    alone where they tell; published results are taken with them where they do not.
    """
)
START = "vit_b.dinov3@512"
_MOST_COMMANDS = 3


def split(evidence: Sequence[Evidence], runs: Sequence[OwnRun], dataset: str, num_classes: int = 150) -> Finding:
    """The claim on the results of one dataset, own runs first."""
    answer = _answer(evidence, runs, dataset, num_classes)
    verdict = _verdict(answer.exponents)
    title = DATASET_TITLES.get(dataset, dataset)
    ids = {point.id for point in answer.chosen.points} if answer.fit else set()
    return Finding(
        name=NAME,
        claim=CLAIM,
        rule=RULE,
        verdict=verdict,
        because=_because(verdict, answer),
        figures=_figures(answer, title),
        settle=() if verdict != UNDECIDED else _settle(answer, dataset),
        notes=("the exponents hold near one model, not along a line to 1024 px: luma scaling shows both",),
        rows=tuple(sorted([*rows_of(evidence, ids), *own_rows(runs, ids)])),
    )


def _answer(evidence: Sequence[Evidence], runs: Sequence[OwnRun], dataset: str, num_classes: int) -> Scaling:
    """The user's own runs alone where they tell the exponents, else all results."""
    from luma_cli.scaling.answer import scaling

    head = HeadConfig(num_classes=num_classes)
    if runs:
        own = scaling((), runs, dataset, START, head, own_only=True)
        if own.measured:
            return own
    return scaling(evidence, runs, dataset, START, head)


def _verdict(exponents: Exponents | None) -> Verdict:
    if exponents is None or not exponents.identified:
        return UNDECIDED
    holds = _holds(exponents.size, PAPER.size) and _holds(exponents.tokens, PAPER.tokens)
    return SUPPORTED if holds else CONTRADICTED


def _holds(interval: Told, value: float) -> bool:
    return interval.low <= value <= interval.high


def _because(verdict: Verdict, answer: Scaling) -> str:
    if answer.exponents is None:
        return f"no law can be fitted: {answer.refusal}"
    if verdict == UNDECIDED:
        width = max(answer.exponents.size.width, answer.exponents.tokens.width)
        return f"the results do not tell the exponents: an interval is {width:.2f} wide, may be {WIDEST}"
    return f"the intervals {'hold' if verdict == SUPPORTED else 'do not both hold'} the paper's exponents"


def _figures(answer: Scaling, title: str) -> tuple[Figure, ...]:
    points = answer.chosen.points
    counts = f"{counted(len(points), 'result')}, {answer.chosen.num_own} of them your own"
    exponents = answer.exponents
    told = (None, None) if exponents is None else (exponents.size, exponents.tokens)
    names = ((f"exponent of N*, {title}", PAPER.size), (f"exponent of T*, {title}", PAPER.tokens))
    return tuple(
        Figure(f"{what}; the paper's is {paper}", _interval(one), "", counts, answer.refusal)
        for (what, paper), one in zip(names, told, strict=True)
    )


def _interval(told: Told | None) -> Interval | None:
    return None if told is None else Interval(told.value, told.low, told.high)


def _settle(answer: Scaling, dataset: str) -> tuple[str, ...]:
    """The first runs of the smallest design, and the command that lists all of it."""
    missing = answer.designs[0].missing if answer.designs else ()
    lines = tuple(model.train_line(dataset) for model in missing[:_MOST_COMMANDS])
    return (*lines, f"luma scaling --dataset {dataset}  (lists all runs of the design)")
