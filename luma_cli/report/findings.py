"""The benchmark's claims in a terminal or a pipe: verdict, numbers, what they rest on, what would settle it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from shutil import get_terminal_size
from typing import TYPE_CHECKING, TextIO

from luma_cli.report.table import Table, columns, print_plain

if TYPE_CHECKING:
    from luma_cli.findings.finding import Figure, Finding
    from luma_cli.findings.findings import ClaimVerdicts

_INDENT = "  "
_UNITS = {"points": " points", "x": "x", "%": " %"}
_LEGEND = "Brackets are 90% intervals; > marks the numbers that decide; mIoU in points of a percent scale."


def print_findings(answer: ClaimVerdicts, with_rows: bool = False, file: TextIO | None = None) -> None:
    """Print to `file` (default stdout): blocks of text on a terminal, tab-separated figures in a pipe."""
    stream = file or sys.stdout
    if not stream.isatty():
        print_plain(_rows_table(answer) if with_rows else _table(answer), stream)
        return
    for finding in answer.findings:
        for line in _block(finding, answer.dataset, with_rows or len(answer.findings) == 1, with_rows):
            print(line, file=stream)
        print(file=stream)
    print(*_wrapped("", _LEGEND), sep="\n", file=stream)
    for note in answer.notes:
        print(*_wrapped("* ", note), sep="\n", file=stream)


def interval_text(figure: Figure) -> str:
    """`2.7 points [2.0, 3.4]`, or a dash where there is no number."""
    if figure.value is None:
        return "-"
    value = figure.value
    said = f"{value.value:.{figure.digits}f}{_UNITS.get(figure.unit, '')}"
    if value.low is None or value.high is None:
        return said
    return f"{said} [{value.low:.{figure.digits}f}, {value.high:.{figure.digits}f}]"


def _block(finding: Finding, dataset: str, with_rule: bool, with_rows: bool) -> Iterator[str]:
    yield f"{finding.name}: {finding.verdict.upper()}"
    yield from _wrapped(_INDENT, finding.claim)
    yield from _wrapped(_INDENT, f"Why: {finding.because}.")
    if with_rule:
        yield from _wrapped(_INDENT, f"Rule: {finding.rule}")
    for figure in finding.figures:
        mark = f"  {'>' if figure.decides else ' '} {interval_text(figure):<24} "
        yield from _wrapped(mark, figure.what + _counts(figure))
    for note in finding.notes:
        yield from _wrapped("  * ", note)
    if with_rows:
        yield from (line for row in finding.rows for line in _wrapped("  | ", f"{row.id}: {row.says}; {row.source}"))
    else:
        yield from _rests_on(finding, dataset)
    if finding.settle:
        yield f"{_INDENT}What to run towards it:"
        yield from (f"{_INDENT}  {command}" for command in finding.settle)


def _counts(figure: Figure) -> str:
    said = [figure.counts, figure.why_not if figure.value is None else ""]
    return f" ({'; '.join(filter(None, said))})" if any(said) else ""


def _rests_on(finding: Finding, dataset: str) -> Iterator[str]:
    if not finding.rows:
        yield f"{_INDENT}Rests on no evidence."
        return
    sources = len({row.source for row in finding.rows})
    rows, where = ("row", "rows")[len(finding.rows) > 1], ("source", "sources")[sources > 1]
    yield f"{_INDENT}Rests on {len(finding.rows)} {rows} from {sources} {where}; rule and rows:"
    yield f"{_INDENT}  luma findings --dataset {dataset} --claim {finding.name} --rows"


def _wrapped(mark: str, text: str) -> list[str]:
    width = max(40, min(get_terminal_size((80, 24)).columns, 120) - 1)
    text = "".join(each if each.isprintable() else " " for each in text)
    return textwrap.wrap(text, width, initial_indent=mark, subsequent_indent=" " * len(mark), break_on_hyphens=False)


def _table(answer: ClaimVerdicts) -> Table:
    """One row per figure, the verdict repeated; rules, notes and commands as comments."""
    rows = []
    for finding in answer.findings:
        for figure in finding.figures:
            value = figure.value
            ends = ("", "") if value is None or value.low is None else (f"{value.low:.6g}", f"{value.high:.6g}")
            number = "" if value is None else f"{value.value:.6g}"
            decides = "yes" if figure.decides else "no"
            cells = (finding.name, finding.verdict, figure.what, number, *ends, figure.unit, figure.counts, decides)
            rows.append(cells)
    headings = ("claim", "verdict", "figure", "value", "low 90%", "high 90%", "unit", "from", "decides")
    return Table(columns(*headings), tuple(rows), caption="\n".join(_comments(answer)))


def _comments(answer: ClaimVerdicts) -> Iterator[str]:
    for finding in answer.findings:
        yield f"{finding.name}: {finding.verdict}: {finding.claim} {finding.because}."
        yield f"{finding.name}: rule: {finding.rule}"
        yield from (f"{finding.name}: note: {note}" for note in finding.notes)
        yield from (f"{finding.name}: to run: {command}" for command in finding.settle)
    yield from answer.notes


def _rows_table(answer: ClaimVerdicts) -> Table:
    rows = tuple((finding.name, row.id, row.says, row.source) for finding in answer.findings for row in finding.rows)
    return Table(columns("claim", "id", "says", "source"), rows)
