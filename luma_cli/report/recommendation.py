"""A recommendation in a terminal or a pipe: the ranked table, why each row stands there, and what to keep in mind."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from shutil import get_terminal_size
from typing import TYPE_CHECKING, TextIO

from luma_cli.report.table import Table, columns, number, print_table
from luma_cli.units import Budget, FlopConvention, gflops, gibibytes

if TYPE_CHECKING:
    from luma_cli.advise.answer import Ranking, Recommendation, Row

_NUM_OWN = 8
_HEADINGS = {
    "ms": "p50 ms",
    "fps": "fps",
    "images_per_second": "img/s",
    "bytes": "GiB",
    "joules": "J/img",
}


def print_recommendation(
    answer: Recommendation, convention: FlopConvention = "mac", file: TextIO | None = None
) -> None:
    """Print the answer to `file` (default stdout): readable on a terminal, tab-separated with `why` in a pipe."""
    stream = file or sys.stdout
    if not stream.isatty():
        print_table(_table(answer, convention, with_why=True), stream)
        for mark, text in _remarks(answer, convention):
            if text:
                print(f"# {mark}{text}", file=stream)
        return
    print_table(_table(answer, convention, with_why=False), stream)
    for row in answer.rows:
        _paragraph(f"{row.rank:2}. ", _name(row) + ": " + row.why, stream)
    for mark, text in _remarks(answer, convention):
        _paragraph(mark, text, stream)


def _remarks(answer: Recommendation, convention: FlopConvention) -> Iterator[tuple[str, str]]:
    """What qualifies the table: own runs, candidates without evidence, other scales, notes; a mark and a text each."""
    yield from _own_lines(answer, convention)
    if answer.without_evidence:
        yield "", ""
        yield "", f"{answer.num_without_evidence} candidates within budget have no evidence on this scale, among them:"
        for row in answer.without_evidence:
            yield "  - ", f"{_name(row)} at {row.candidate.resolution} px: {row.why}"
    for ranking in answer.other_scales:
        yield "", ""
        yield "", f"On another scale, not to be compared with the above ({ranking.scale.label}):"
        yield "  ", _short(ranking)
    yield "", ""
    for note in answer.notes:
        yield "* ", note


def _own_lines(answer: Recommendation, convention: FlopConvention) -> Iterator[tuple[str, str]]:
    """The user's own runs: what was measured, on which data, and why a run is not ranked."""
    if not answer.measured_here:
        return
    yield "", ""
    yield "", "Measured here:"
    for row in answer.measured_here[:_NUM_OWN]:
        run = row.run
        cost = "" if run.macs is None else f", {number(gflops(run.macs, convention))} GFLOPs"
        yield (
            "  - ",
            f"{run.backbone} at {run.resolution} px: {run.miou_percent:.1f} mIoU on {run.data} {run.split}{cost}, run "
            f"{run.run_id}; " + (f"not ranked: {', '.join(row.why_not)}" if row.why_not else "ranked on its own scale"),
        )
    if (more := len(answer.measured_here) - _NUM_OWN) > 0:
        yield "    ", f"and {more} more; --json has them all"


def _table(answer: Recommendation, convention: FlopConvention, with_why: bool) -> Table:
    measured = [budget for budget in answer.budgets if budget.kind in _HEADINGS]
    headings = ["#>", "backbone", "px>", "mIoU>", "GFLOPs>", "params M>"]
    headings += [f"{_HEADINGS[budget.kind]}>" for budget in measured]
    rows = []
    for row in answer.rows:
        cells = _cells(row, convention) + [_measured(row, budget) for budget in measured]
        rows.append(tuple(cells + ([row.why] if with_why else [])))
    asked = ", ".join(budget.text for budget in answer.budgets) or "no budget"
    scale = answer.scale.label if answer.scale else "no accuracy evidence"
    return Table(
        columns(*headings, *(["why~"] if with_why else [])),
        tuple(rows),
        title=f"{answer.dataset} under {asked}: {answer.num_within_budget} candidates within budget",
        caption="mIoU in percent on the scale of " + scale
        if answer.scale
        else "no accuracy evidence; ordered by GMACs",
    )


def _cells(row: Row, convention: FlopConvention) -> list[str]:
    candidate, prediction = row.candidate, row.prediction
    miou = prediction.miou_percent if prediction else None
    return [
        f"{row.rank}{'=' if row.tie else ''}" if prediction else "-",  # an order by cost is no rank
        _name(row),
        str(candidate.resolution),
        number(miou),
        number(None if candidate.macs is None else gflops(candidate.macs, convention)),
        number(None if candidate.params is None else candidate.params / 1e6),
    ]


def _name(row: Row) -> str:
    """The card's name; the objective is in it already or is added."""
    name, objective = row.candidate.name, row.candidate.pretraining
    return name if not objective or objective in name else f"{name} ({objective})"


def _measured(row: Row, budget: Budget) -> str:
    from luma_cli.advise.budgets import cost

    value = cost(row.candidate, budget.kind)
    return number(gibibytes(value) if value is not None and budget.kind == "bytes" else value, 2)


def _short(ranking: Ranking) -> str:
    return "; ".join(
        f"{_name(row)} at {row.candidate.resolution} px {number(row.prediction.miou_percent)}"
        for row in ranking.rows
        if row.prediction is not None
    )


def _paragraph(mark: str, text: str, file: TextIO) -> None:
    """Wrapped text behind a mark, indented under itself."""
    width = max(40, get_terminal_size((80, 24)).columns - 1)
    print(
        textwrap.fill(text, width, break_on_hyphens=False, initial_indent=mark, subsequent_indent=" " * len(mark)),
        file=file,
    )
