"""The proposed runs in a terminal or a pipe: each with its reason, what it costs, and the line to type."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from shutil import get_terminal_size
from typing import TYPE_CHECKING, TextIO

from luma_cli.advise.training_cost import rounded

if TYPE_CHECKING:
    from luma_cli.advise.next_answer import NextRuns
    from luma_cli.advise.next_run import NextRun


def print_next(found: NextRuns, file: TextIO | None = None) -> None:
    """Print the runs to `file` (default stdout). Commands are never wrapped, so that they can be copied."""
    stream = file or sys.stdout
    width = max(40, get_terminal_size((80, 24)).columns - 1) if stream.isatty() else 10_000
    for mark, text in _lines(found):
        if text.startswith("luma "):
            print(f"{mark}{text}", file=stream)
            continue
        wrapped = textwrap.fill(
            text, width, break_on_hyphens=False, initial_indent=mark, subsequent_indent=" " * len(mark)
        )
        print(wrapped, file=stream)


def _lines(found: NextRuns) -> Iterator[tuple[str, str]]:
    hours = "" if found.hours is None else f" within {found.hours:g} GPU-hours"
    yield "", f"{found.question.dataset}: what to train next{hours}, by {found.ranked_by}"
    for number, run in enumerate(found.batch, 1):
        yield "", ""
        yield from _run(f"{number}. ", run)
    if found.batch:
        yield "", ""
        yield "", f"Together: {_together(found)}"
    if found.proxies:
        yield "", ""
        yield "", "Cheaper first look, to be compared with each other only:"
        for run in found.proxies:
            yield from _run("  - ", run)
    if found.exponents is not None:
        yield "", ""
        yield "", "For the scaling law:"
        yield from _run("  - ", found.exponents)
    yield "", ""
    yield "* ", f"mIoU as predicted, {found.scale_note}"
    for note in found.notes:
        yield "* ", note


def _run(mark: str, run: NextRun) -> Iterator[tuple[str, str]]:
    low, high = run.prediction.interval_80
    predicted = f"{run.prediction.miou_percent:.1f} mIoU expected (80%: {low:.1f} to {high:.1f})"
    said = "" if run.purpose == "proxy" else f", {predicted}"
    yield mark, f"{run.candidate.label}: {run.cost.text} {run.cost.source}{said}; {run.why}"
    yield " " * len(mark), run.command


def _together(found: NextRuns) -> str:
    total = sum(run.cost.value for run in found.batch)
    runs = "1 run" if len(found.batch) == 1 else f"{len(found.batch)} runs"
    return f"{rounded(total)} {found.batch[0].cost.unit} for {runs}"
