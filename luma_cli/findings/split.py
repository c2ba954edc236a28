"""Claim: the compute-optimal size grows as C^0.83, the image tokens as C^0.2 (arXiv 2607.00687, the 80/20 rule)."""

from __future__ import annotations

from collections.abc import Sequence

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.findings.finding import SUPPORTED, UNDECIDED, Figure, Finding, Interval, counted, judge, own_rows, rows_of
from luma_cli.scaling.answer import Scaling, scaling
from luma_cli.scaling.bootstrap import WIDEST
from luma_cli.scaling.law import PAPER
from luma_cli.store.runs import OwnRun

CLAIM = Finding(
    "split",
    f"Of more compute most belongs in parameters: N* grows as C^{PAPER.size}, image tokens T* as C^{PAPER.tokens}.",
    f"""
    The law error = E + A N^-a + B T^-b on results of at least 3 sizes and 3 resolutions, residual bootstrap; exponents
    at the cost elasticities of ViT-B at 512 px. Decided where both 90% intervals are at most {WIDEST} wide: supported
    when that of N holds {PAPER.size} and that of T {PAPER.tokens}, contradicted when one does not. Your own runs decide
    alone where they tell; published results are taken with them where they do not.
    """,
)
START = "vit_b.dinov3@512"
_MOST_COMMANDS = 3


def split(evidence: Sequence[Evidence], runs: Sequence[OwnRun], dataset: str, num_classes: int = 150) -> Finding:
    """The claim on the results of one dataset, own runs first."""
    answer = _answer(evidence, runs, dataset, HeadConfig(num_classes=num_classes))
    told = answer.exponents
    title, points = DATASET_TITLES.get(dataset, dataset), answer.chosen.points
    counts = f"{counted(len(points), 'result')}, {answer.chosen.num_own} of them your own"
    verdict = UNDECIDED
    exponents = (None, None) if told is None else (told.size, told.tokens)
    figures = [
        Figure(
            f"exponent of {name}, {title}; the paper's is {paper}",
            None if exponent is None else Interval(exponent.value, exponent.low, exponent.high),
            counts=counts,
            why_not=answer.refusal,
        )
        for name, exponent, paper in zip(("N*", "T*"), exponents, (PAPER.size, PAPER.tokens), strict=True)
    ]
    if told is None:
        because = f"no law can be fitted: {answer.refusal}"
    elif not told.identified:
        width = max(told.size.width, told.tokens.width)
        because = f"the results do not tell the exponents: an interval is {width:.2f} wide, may be {WIDEST}"
    else:
        holds = told.size.low <= PAPER.size <= told.size.high and told.tokens.low <= PAPER.tokens <= told.tokens.high
        verdict = judge(holds, not holds)
        because = f"the intervals {'hold' if verdict == SUPPORTED else 'do not both hold'} the paper's exponents"
    ids = {point.id for point in points} if answer.fit else set()
    missing = answer.designs[0].missing if answer.designs else ()
    return CLAIM.concluded(
        verdict,
        because,
        figures,
        [*rows_of(evidence, ids), *own_rows(runs, ids)],
        settle=(
            *(model.train_line(dataset) for model in missing[:_MOST_COMMANDS]),
            f"luma scaling --dataset {dataset}  (lists all runs of the design)",
        ),
        notes=("the exponents hold near one model, not along a line to 1024 px: luma scaling shows both",),
    )


def _answer(evidence: Sequence[Evidence], runs: Sequence[OwnRun], dataset: str, head: HeadConfig) -> Scaling:
    """The user's own runs alone where they tell the exponents, else all results."""
    if runs:
        own = scaling((), runs, dataset, START, head, own_only=True)
        if own.measured:
            return own
    return scaling(evidence, runs, dataset, START, head)
