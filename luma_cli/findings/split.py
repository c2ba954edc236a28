"""Claim: the compute-optimal size grows as C^0.83, the image tokens as C^0.2 (arXiv 2607.00687, the 80/20 rule)."""

from __future__ import annotations

from collections.abc import Sequence

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.evidence.own_runs import evidence_of
from luma_cli.findings.finding import Figure, Finding, Interval, judge, rows_of
from luma_cli.scaling.answer import Scaling, scaling
from luma_cli.scaling.bootstrap import WIDEST
from luma_cli.scaling.law import PAPER
from luma_cli.store.runs import OwnRun
from luma_cli.units import counted

CLAIM = Finding(
    "split",
    f"Of more compute most belongs in parameters: N* grows as C^{PAPER.size}, image tokens T* as C^{PAPER.tokens}.",
    "Exponents of the scaling law near ViT-B at 512 px, decided where both 90% intervals are at most "
    f"{WIDEST} wide: supported where they include {PAPER.size} and {PAPER.tokens}, contradicted where one does not; "
    "own runs decide alone where they suffice.",
)
START = "vit_b.dinov3@512"
_MOST_COMMANDS = 3


def split(evidence: Sequence[Evidence], runs: Sequence[OwnRun], dataset: str, num_classes: int = 150) -> Finding:
    """The claim on the results of one dataset, own runs first."""
    answer = _answer(evidence, runs, dataset, HeadConfig(num_classes=num_classes))
    found, points = answer.exponents, answer.chosen.points
    is_supported = is_contradicted = False
    if found is None:
        because = f"no law can be fitted: {answer.refusal}"
    elif not found.identified:
        width = max(found.size.width, found.tokens.width)
        because = f"a 90% interval is {width:.2f} wide, at most {WIDEST} is accepted"
    else:
        holds = (
            found.size.low <= PAPER.size <= found.size.high and found.tokens.low <= PAPER.tokens <= found.tokens.high
        )
        is_supported, is_contradicted = holds, not holds
        because = f"the intervals {'include' if holds else 'do not both include'} the paper's exponents"
    title, counts = (
        DATASET_TITLES.get(dataset, dataset),
        f"{counted(len(points), 'result')}, {answer.chosen.num_own} own",
    )
    exponents = (None, None) if found is None else (found.size, found.tokens)
    figures = [
        Figure(
            f"exponent of {name}, {title}; the paper's is {paper}",
            None if exponent is None else Interval(exponent.value, exponent.low, exponent.high),
            counts=counts,
            why_not=answer.refusal,
        )
        for name, exponent, paper in zip(("N*", "T*"), exponents, (PAPER.size, PAPER.tokens), strict=True)
    ]
    ids = {point.id for point in points} if answer.fit else set()
    missing = answer.designs[0].missing if answer.designs else ()
    return CLAIM.concluded(
        judge(is_supported, is_contradicted),
        because,
        figures,
        rows_of([*evidence, *(evidence_of(run) for run in runs)], ids),
        [
            *(model.train_line(dataset) for model in missing[:_MOST_COMMANDS]),
            f"luma scaling --dataset {dataset}  (lists all runs of the design)",
        ],
    )


def _answer(evidence: Sequence[Evidence], runs: Sequence[OwnRun], dataset: str, head: HeadConfig) -> Scaling:
    """The user's own runs alone where they identify the exponents, else all results."""
    if runs:
        own = scaling((), runs, dataset, START, head, own_only=True)
        if own.measured:
            return own
    return scaling(evidence, runs, dataset, START, head)
