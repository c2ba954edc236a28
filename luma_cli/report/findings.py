"""The benchmark's claims in a terminal or a pipe: verdict, numbers, what they rest on, what would settle it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from luma_cli.report.table import Table, columns, paragraphs, print_plain
from luma_cli.units import counted

if TYPE_CHECKING:
    from luma_cli.findings.finding import Figure, Finding
    from luma_cli.findings.findings import ClaimVerdicts

_UNITS = {"points": " points", "x": "x"}
_LEGEND = "Brackets are 90% intervals; mIoU in points of a percent scale."


def print_findings(
    answer: ClaimVerdicts, with_rows: bool = False, file: TextIO | None = None, *, why: bool = False
) -> None:
    """Print to `file` (default stdout): one screen on a terminal, tab-separated figures in a pipe.

    why, with_rows: on a terminal a block of text for each claim, as for a single one.
    """
    stream = file or sys.stdout
    if not stream.isatty():
        print_plain(_rows_table(answer) if with_rows else _table(answer), stream)
        return
    if len(answer.findings) > 1 and not (why or with_rows):
        paragraphs(_screen(answer), stream)
        return
    lines = []
    for finding in answer.findings:
        lines += [*_block(finding, answer.dataset, with_rows, with_rows or len(answer.findings) == 1), ("", "")]
    # Names of own datasets and runs come from outside, and must not steer the terminal.
    clean = [(mark, "".join(each if each.isprintable() else " " for each in text)) for mark, text in lines]
    paragraphs([*clean, ("", _LEGEND), *(("* ", note) for note in answer.notes)], stream)


def interval_text(figure: Figure) -> str:
    """`2.7 points [2.0, 3.4]`, or a dash where there is no number."""
    if figure.value is None:
        return "-"
    value = figure.value
    said = f"{value.value:.{figure.digits}f}{_UNITS.get(figure.unit, '')}"
    if value.low is None or value.high is None:
        return said
    return f"{said} [{value.low:.{figure.digits}f}, {value.high:.{figure.digits}f}]"


def _screen(answer: ClaimVerdicts) -> Iterator[tuple[str, str]]:
    """For each claim the verdict, the figure that decides it, and what it was computed from."""
    for finding in answer.findings:
        figure = next((figure for figure in finding.figures if figure.value is not None), None)
        said = finding.because
        if figure is not None:
            counts = f" ({figure.counts})" if figure.counts else ""
            said = f"{interval_text(figure)} {figure.what}{counts}"
        yield f"{finding.name:<12}", f"{finding.verdict}: {said}"
    yield "", "Rules, notes and what would settle a claim: luma findings --why, or --claim NAME."


def _block(finding: Finding, dataset: str, with_rows: bool, with_rule: bool) -> Iterator[tuple[str, str]]:
    """Marks and texts."""
    yield "", f"{finding.name}: {finding.verdict.upper()}"
    yield "  ", finding.claim
    yield "  ", f"Why: {finding.because}."
    if with_rule:
        yield "  ", f"Rule: {finding.rule}"
    for figure in finding.figures:
        said = "; ".join(filter(None, (figure.counts, figure.why_not if figure.value is None else "")))
        yield f"    {interval_text(figure):<24} ", figure.what + (f" ({said})" if said else "")
    for note in finding.notes:
        yield "  * ", note
    if with_rows:
        yield from (("  | ", f"{row.id}: {row.says}; {row.source}") for row in finding.rows)
    elif finding.rows:
        sources = len({row.source for row in finding.rows})
        yield "  ", f"Based on {counted(len(finding.rows), 'row')} from {counted(sources, 'source')}; rule and rows:"
        yield "    ", f"luma findings --dataset {dataset} --claim {finding.name} --rows"
    else:
        yield "  ", "Based on no evidence."
    if finding.settle:
        yield "  ", "To run:"
        yield from (("    ", command) for command in finding.settle)


def _table(answer: ClaimVerdicts) -> Table:
    """One row per figure, the verdict repeated; rules, notes and commands as comments."""
    rows, comments = [], []
    for finding in answer.findings:
        comments += [
            f"{finding.name}: {finding.verdict}: {finding.claim} {finding.because}.",
            f"{finding.name}: rule: {finding.rule}",
            *(f"{finding.name}: note: {note}" for note in finding.notes),
            *(f"{finding.name}: to run: {command}" for command in finding.settle),
        ]
        for figure in finding.figures:
            value = figure.value
            ends = ("", "") if value is None or value.low is None else (f"{value.low:.6g}", f"{value.high:.6g}")
            number = "" if value is None else f"{value.value:.6g}"
            rows.append((finding.name, finding.verdict, figure.what, number, *ends, figure.unit, figure.counts))
    headings = ("claim", "verdict", "figure", "value", "low 90%", "high 90%", "unit", "from")
    return Table(columns(*headings), tuple(rows), caption="\n".join([*comments, *answer.notes]))


def _rows_table(answer: ClaimVerdicts) -> Table:
    rows = tuple((finding.name, row.id, row.says, row.source) for finding in answer.findings for row in finding.rows)
    return Table(columns("claim", "id", "says", "source"), rows)
