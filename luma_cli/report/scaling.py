"""`luma scaling` in a terminal or a pipe: what the results tell, the paper's rule, and the runs that would tell."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from shutil import get_terminal_size
from typing import TextIO

from luma_cli.advise.more_compute import MoreCompute, Spending
from luma_cli.advise.ties import TIE_MIOU
from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.report.table import Table, columns, number, print_table
from luma_cli.scaling.answer import Scaling
from luma_cli.scaling.bootstrap import WIDEST, Interval
from luma_cli.scaling.experiment import NOISE_MIOU, Experiment
from luma_cli.scaling.local import Local
from luma_cli.scaling.optimal import PAPER, PAPER_SOURCE, split
from luma_cli.units import FlopConvention, convention_caption, gflops

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
    _say(_evidence_lines(answer), stream)
    if answer.exponents is not None:
        print_table(_exponents(answer), stream)
        _say(_method_lines(answer), stream)
    _say(_split_lines(answer), stream)
    print_table(_along(answer, convention), stream)
    _say(_place_lines(convention), stream)
    if more is not None:
        print_table(_spending(more, convention), stream)
        _say(_more_lines(more, convention), stream)
    design = next((each for each in answer.designs if len(each.runs) == num_runs), None)
    if design is not None and not answer.measured:
        print_table(_design(design, answer.dataset, convention), stream)
        _say(_design_lines(answer, design), stream)


def _say(lines: Iterator[str], file: TextIO) -> None:
    """Wrapped paragraphs on a terminal, commands whole; comment lines in a pipe."""
    width = max(40, get_terminal_size((80, 24)).columns - 1)
    for line in lines:
        if not file.isatty():
            print(f"# {line}", file=file)
        elif line.startswith("luma "):
            print(f"  {line}", file=file)
        else:
            print(textwrap.fill(line, width, break_on_hyphens=False), file=file)


def _evidence_lines(answer: Scaling) -> Iterator[str]:
    title = DATASET_TITLES.get(answer.dataset, answer.dataset)
    filters = f" ({answer.asked})" if answer.asked else ""
    points, levels = len(answer.chosen.points), len(answer.chosen.levels)
    yield f"Scaling on {title}{filters}: 100 - mIoU = E + A (N/N0)^-a + B (T/T0)^-b"
    yield (
        f"{_count(points, 'result')} on {_count(levels, 'level')}, {answer.chosen.num_own} of them own runs. "
        "A level is one series, pretraining, head, protocol and source; each has a factor of its own. "
        "N: parameters of the backbone. T: image tokens, (height / 16) x (width / 16)."
    )
    yield f"Compared within a level: {_sizes(answer.sizes)}; {_sides(answer.token_counts)}."
    if answer.chosen.left_out:
        counts = sorted(answer.chosen.left_out.items(), key=lambda each: (-each[1], each[0]))
        yield "Left out: " + "; ".join(f"{reason} ({count})" for reason, count in counts) + "."
    if answer.refusal:
        yield f"No law: {answer.refusal}{'; run next:' if answer.next_run else ''}"
        if answer.next_run is not None:
            yield answer.next_run.train_line(answer.dataset)


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _sizes(sizes: tuple[float, ...]) -> str:
    if not sizes:
        return "no two sizes"
    return f"{_count(len(sizes), 'size')} from {sizes[0] / 1e6:.3g} to {sizes[-1] / 1e6:.3g} M"


def _sides(token_counts: tuple[float, ...]) -> str:
    if not token_counts:
        return "no two resolutions"
    sides = [f"{round(16 * tokens**0.5)}" for tokens in token_counts]
    return f"{_count(len(sides), 'resolution')}: {', '.join(sides)} px"


def _exponents(answer: Scaling) -> Table:
    found = answer.exponents
    if found is None:
        raise ValueError("no exponents to show")
    rows = [
        _exponent("a: error with size", found.a, ""),
        _exponent("b: error with tokens", found.b, ""),
        _exponent("n: best size, N* ~ C^n", found.size, f"{PAPER.size:g}"),
        _exponent("t: best tokens, T* ~ C^t", found.tokens, f"{PAPER.tokens:g}"),
    ]
    return Table(
        columns("exponent", "these results>", "90% interval>", "paper>"),
        tuple(rows),
        title=f"Exponents, n and t at {answer.at.model.label}",
    )


def _method_lines(answer: Scaling) -> Iterator[str]:
    if answer.fit is None or answer.exponents is None:
        return
    loss = "squares of mIoU points" if answer.fit.loss.huber is None else "Huber's on log error"
    yield (
        f"{len(answer.exponents.draws)} refits to resampled residuals; loss: {loss}; scatter of one result: "
        f"{answer.fit.law.noise_miou:.2f} mIoU. An exponent whose 90% interval is wider than {WIDEST:g} is not printed."
    )


def _exponent(name: str, interval: Interval, paper: str) -> tuple[str, str, str, str]:
    if not interval.tells:
        return name, _UNTOLD, "-", paper or "-"
    return name, f"{interval.value:.2f}", f"{interval.low:.2f} to {interval.high:.2f}", paper or "-"


def _split_lines(answer: Scaling) -> Iterator[str]:
    n, t = answer.split.size, answer.split.tokens
    whose = "These results" if answer.measured else f"The paper ({PAPER_SOURCE}), not these results"
    yield (
        f"{whose}: N* ~ C^{n:.2f}, T* ~ C^{t:.2f}. Of 10 times the compute, {10**n:.1f} times the parameters and "
        f"{10**t:.1f} times the tokens (side x{10 ** (t / 2):.2f})."
    )


def _along(answer: Scaling, convention: FlopConvention) -> Table:
    law = answer.fit.law if answer.fit is not None and answer.measured else None
    rows = []
    for each in answer.along:
        cells = [*_place(each, convention), f"{each.elasticity.p:.2f}", f"{each.elasticity.q:.2f}"]
        if law is not None:
            here = split(law.a, law.b, each.elasticity, law.by_size > 0, law.by_tokens > 0)
            cells += [f"{here.size:.2f}", f"{here.tokens:.2f}"]
        rows.append(tuple(cells))
    told = ["n>", "t>"] if law is not None else []
    return Table(
        columns("backbone", "px>", "GFLOPs>", "p>", "q>", *told),
        tuple(rows),
        title="Slopes of compute there",
    )


def _place_lines(convention: FlopConvention) -> Iterator[str]:
    yield (
        "p, q: compute grows as N^p and T^q, between the exact counts of neighbouring sizes and resolutions. Exponents "
        f"hold near one model, not as one line up to 1024 px. {convention_caption(convention)}, segmenter on one crop."
    )


def _place(at: Local, convention: FlopConvention) -> tuple[str, str, str]:
    model = at.model
    return model.name, str(model.resolution), number(gflops(model.macs, convention))


def _spending(more: MoreCompute, convention: FlopConvention) -> Table:
    rows = [_spent(each, more, convention) for each in (more.start, *more.spendings)]
    predicted = any(each.prediction for each in (more.start, *more.spendings))
    heading = ["mIoU>", "80% interval>"] if predicted else []
    shown = tuple(row if predicted else row[:5] for row in rows)
    budget = number(gflops(more.wanted.macs, convention))
    return Table(
        columns("rests on~", "backbone", "px>", "GFLOPs>", "compute>", *heading),
        shown,
        title=f"{more.wanted.factor:g} times the compute of {more.start.name} at {more.start.resolution} px: "
        f"up to {budget} GFLOPs",
    )


def _spent(spending: Spending, more: MoreCompute, convention: FlopConvention) -> tuple[str, ...]:
    found = spending.prediction
    low, high = found.interval_80 if found else (None, None)
    return (
        spending.rests_on,
        spending.name,
        str(spending.resolution),
        number(gflops(spending.macs, convention)),
        f"x{spending.macs / more.start.macs:.1f}",
        number(found.miou_percent if found else None),
        f"{low:.1f} to {high:.1f}" if low is not None and high is not None else "-",
    )


def _more_lines(more: MoreCompute, convention: FlopConvention) -> Iterator[str]:
    wanted = more.wanted
    point = f"{wanted.params / 1e6:.0f} M parameters at {wanted.side:.0f} px"
    yield f"By the exponents alone, were sizes continuous: {point}."
    if more.scale_note:
        yield f"mIoU in percent, predicted {more.scale_note}; within {TIE_MIOU:g} mIoU the cheaper is taken."
    if not more.spendings:
        if more.cheapest is None:
            yield f"{more.start.name} at {more.start.resolution} px is the largest of its series that is costed."
        else:
            needed = f"{number(gflops(more.cheapest.macs, convention))} GFLOPs"
            yield f"Nothing of the series fits; the cheapest larger one is {more.cheapest.label} with {needed}."


def _design(design: Experiment, dataset: str, convention: FlopConvention) -> Table:
    rows = [
        (
            number(gflops(each.model.macs, convention)),
            "done" if each.done else each.model.train_line(dataset),
        )
        for each in design.runs
    ]
    return Table(
        columns("GFLOPs>", "run"),
        tuple(rows),
        title=f"{len(design.runs)} runs that would tell ({design.series})",
        caption=f"Expected: n within {design.half_width:.2f} either way (90%), if the paper's split holds and seeds "
        f"scatter by {NOISE_MIOU:g} mIoU",
    )


def _design_lines(answer: Scaling, shown: Experiment) -> Iterator[str]:
    if answer.next_run is not None:
        yield "The most telling of them now:"
        yield answer.next_run.train_line(answer.dataset)
    for each in answer.designs:
        if each is not shown:
            yield f"{len(each.runs)} runs (--runs {len(each.runs)}) would tell n within {each.half_width:.2f}."
