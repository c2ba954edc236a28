"""`luma scaling` in a terminal or a pipe: what the results tell, the paper's rule, and the runs that would tell."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TextIO

from luma_cli.advise.fronts import TIE_MIOU
from luma_cli.advise.more_compute import MoreCompute, Spending
from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.report.table import Table, columns, number, paragraphs, print_table
from luma_cli.scaling.answer import Scaling
from luma_cli.scaling.bootstrap import WIDEST, Exponents
from luma_cli.scaling.law import PAPER, PAPER_SOURCE, Law
from luma_cli.scaling.series import NOISE_MIOU, Experiment
from luma_cli.units import FlopConvention, convention_caption, counted, gflops

_UNTOLD = "cannot tell"


def print_scaling(
    answer: Scaling,
    more: MoreCompute | None = None,
    num_runs: int = 9,
    convention: FlopConvention = "mac",
    file: TextIO | None = None,
) -> None:
    """Print the answer to `file` (default stdout): tables and paragraphs on a terminal, tab-separated in a pipe.

    more: how to spend more compute. num_runs: which of the two designs is listed where the results cannot tell.
    """
    stream = file or sys.stdout
    for part in _parts(answer, more, num_runs, convention):
        if isinstance(part, Table):
            print_table(part, stream)
        else:
            paragraphs([("  " if stream.isatty() and part.startswith("luma ") else "", part)], stream)


def _parts(
    answer: Scaling, more: MoreCompute | None, num_runs: int, convention: FlopConvention
) -> Iterator[str | Table]:
    """Tables and sentences in order."""
    yield from _evidence_lines(answer)
    law = answer.fit.law if answer.fit is not None else None
    if answer.fit is not None and answer.exponents is not None:
        yield _exponents(answer.exponents, answer.at.model.label)
        loss = "squares of mIoU points" if answer.fit.problem.huber is None else "Huber's on log error"
        yield (
            f"{answer.exponents.refits} refits to resampled residuals; loss: {loss}; scatter of one result: "
            f"{answer.fit.law.noise_miou:.2f} mIoU. An exponent whose 90% interval is wider than {WIDEST:g} is not "
            "printed."
        )
    n, t = answer.split.size, answer.split.tokens
    yield (
        f"{'These results' if answer.measured else f'The paper ({PAPER_SOURCE}), not these results'}: "
        f"N* ~ C^{n:.2f}, T* ~ C^{t:.2f}. Of 10 times the compute, {10**n:.1f} times the parameters and "
        f"{10**t:.1f} times the tokens (side x{10 ** (t / 2):.2f})."
    )
    yield _along(answer, law if answer.measured else None, convention)
    yield (
        "p, q: compute grows as N^p and T^q, between the exact counts of neighbouring sizes and resolutions. Exponents "
        f"hold near one model, not as one line up to 1024 px. {convention_caption(convention)}, segmenter on one crop."
    )
    if more is not None:
        yield _spending(more, convention)
        yield from _more_lines(more, convention)
    design = next((each for each in answer.designs if len(each.runs) == num_runs), None)
    if design is not None and not answer.measured:
        yield _design(design, answer.dataset, convention)
        if answer.next_run is not None:
            yield "The most telling of them now:"
            yield answer.next_run.train_line(answer.dataset)
        for each in answer.designs:
            if each is not design:
                yield f"{len(each.runs)} runs (--runs {len(each.runs)}) would tell n within {each.half_width:.2f}."


def _evidence_lines(answer: Scaling) -> Iterator[str]:
    title = DATASET_TITLES.get(answer.dataset, answer.dataset)
    filters = f" ({answer.asked})" if answer.asked else ""
    yield f"Scaling on {title}{filters}: 100 - mIoU = E + A (N/N0)^-a + B (T/T0)^-b"
    chosen = answer.chosen
    yield (
        f"{counted(len(chosen.points), 'result')} on {counted(len(chosen.levels), 'level')}, {chosen.num_own} of them "
        "own runs. A level is one series, pretraining, head, protocol and source; each has a factor of its own. "
        "N: parameters of the backbone. T: image tokens, (height / 16) x (width / 16)."
    )
    sizes, sides = answer.sizes, [str(round(16 * tokens**0.5)) for tokens in answer.token_counts]
    said_sizes = f"{counted(len(sizes), 'size')} from {sizes[0] / 1e6:.3g} to {sizes[-1] / 1e6:.3g} M" if sizes else ""
    said_sides = f"{counted(len(sides), 'resolution')}: {', '.join(sides)} px" if sides else ""
    yield f"Compared within a level: {said_sizes or 'no two sizes'}; {said_sides or 'no two resolutions'}."
    if chosen.left_out:
        counts = sorted(chosen.left_out.items(), key=lambda each: (-each[1], each[0]))
        yield "Left out: " + "; ".join(f"{reason} ({count})" for reason, count in counts) + "."
    if answer.refusal:
        yield f"No law: {answer.refusal}{'; run next:' if answer.next_run else ''}"
        if answer.next_run is not None:
            yield answer.next_run.train_line(answer.dataset)


def _exponents(found: Exponents, label: str) -> Table:
    rows = []
    for name, interval, paper in (
        ("a: error with size", found.a, "-"),
        ("b: error with tokens", found.b, "-"),
        ("n: best size, N* ~ C^n", found.size, f"{PAPER.size:g}"),
        ("t: best tokens, T* ~ C^t", found.tokens, f"{PAPER.tokens:g}"),
    ):
        told = (f"{interval.value:.2f}", f"{interval.low:.2f} to {interval.high:.2f}")
        rows.append((name, *(told if interval.tells else (_UNTOLD, "-")), paper))
    headings = columns("exponent", "these results>", "90% interval>", "paper>")
    return Table(headings, tuple(rows), title=f"Exponents, n and t at {label}")


def _along(answer: Scaling, law: Law | None, convention: FlopConvention) -> Table:
    """Slopes of compute; with a law that tells, the split by it as well."""
    rows = []
    for each in answer.along:
        model, slopes = each.model, each.elasticity
        cells = [model.name, str(model.resolution), number(gflops(model.macs, convention))]
        cells += [f"{slopes.p:.2f}", f"{slopes.q:.2f}"]
        if law is not None:
            here = law.split(slopes)
            cells += [f"{here.size:.2f}", f"{here.tokens:.2f}"]
        rows.append(tuple(cells))
    told = ["n>", "t>"] if law is not None else []
    headings = columns("backbone", "px>", "GFLOPs>", "p>", "q>", *told)
    return Table(headings, tuple(rows), title="Slopes of compute there")


def _spending(more: MoreCompute, convention: FlopConvention) -> Table:
    every = (more.start, *more.spendings)
    rows = [_spent(each, more.start.macs, convention) for each in every]
    headings = ["rests on~", "backbone", "px>", "GFLOPs>", "compute>", "mIoU>", "80% interval>"]
    shown = len(headings) if any(each.prediction for each in every) else 5
    return Table(
        columns(*headings[:shown]),
        tuple(row[:shown] for row in rows),
        title=f"{more.wanted.factor:g} times the compute of {more.start.name} at {more.start.resolution} px: "
        f"up to {number(gflops(more.wanted.macs, convention))} GFLOPs",
    )


def _spent(spending: Spending, start_macs: int, convention: FlopConvention) -> tuple[str, ...]:
    found = spending.prediction
    return (
        spending.rests_on,
        spending.name,
        str(spending.resolution),
        number(gflops(spending.macs, convention)),
        f"x{spending.macs / start_macs:.1f}",
        number(found.miou_percent if found else None),
        f"{found.interval_80[0]:.1f} to {found.interval_80[1]:.1f}" if found else "-",
    )


def _more_lines(more: MoreCompute, convention: FlopConvention) -> Iterator[str]:
    wanted = more.wanted
    point = f"{wanted.params / 1e6:.0f} M parameters at {wanted.side:.0f} px"
    yield f"By the exponents alone, were sizes continuous: {point}."
    if more.scale_note:
        yield f"mIoU in percent, predicted {more.scale_note}; within {TIE_MIOU:g} mIoU the cheaper is taken."
    if more.cheapest is not None:
        needed = f"{number(gflops(more.cheapest.macs, convention))} GFLOPs"
        yield f"Nothing of the series fits; the cheapest larger one is {more.cheapest.label} with {needed}."
    elif not more.spendings:
        yield f"{more.start.name} at {more.start.resolution} px is the largest of its series that is costed."


def _design(design: Experiment, dataset: str, convention: FlopConvention) -> Table:
    rows = [
        (number(gflops(each.model.macs, convention)), "done" if each.done else each.model.train_line(dataset))
        for each in design.runs
    ]
    return Table(
        columns("GFLOPs>", "run"),
        tuple(rows),
        title=f"{len(design.runs)} runs that would tell ({design.series})",
        caption=f"Expected: n within {design.half_width:.2f} either way (90%), if the paper's split holds and seeds "
        f"scatter by {NOISE_MIOU:g} mIoU",
    )
