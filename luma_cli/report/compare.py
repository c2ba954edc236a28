"""A comparison of backbones as a table, and a sentence for each pair."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from luma_cli.catalogue.licences import short
from luma_cli.report.recommendation import EVIDENCE, HEADINGS, cost_cell
from luma_cli.report.table import Table, columns, four_digits, number, paragraphs, print_table
from luma_cli.units import gflops

if TYPE_CHECKING:
    from luma_cli.advise.compare import Comparison


def print_comparison(found: Comparison, file: TextIO | None = None) -> None:
    """Print the rows, then for each pair which one is likely better and why."""
    stream = file or sys.stdout
    print_table(_table(found), stream)
    lines = []
    for pair in found.pairs:
        better, worse = (found.rows[at].candidate.title for at in (pair.better, pair.worse))
        gap = f"{pair.points:+.1f} mIoU expected" + (f", {pair.reason}" if pair.reason else "")
        tie = f"{better} and {worse}: a tie (P {pair.chance:.2f}), {gap}"
        lines.append(f"{better} is {pair.verdict} than {worse}: P {pair.chance:.2f}, {gap}")
        if pair.verdict == "a tie":
            lines[-1] = tie
    size = found.rows[0].candidate.resolution
    notes = [*found.notes, f"mIoU on {found.question.dataset} at {size} px, 80% interval, {found.scale_note}"]
    paragraphs([*(("", line) for line in lines), *(("* ", note) for note in notes)], stream)


def _table(found: Comparison) -> Table:
    convention = found.question.convention
    headings = ["backbone~", "mIoU>", "80%>", *(f"{HEADINGS[kind]}>" for kind in found.kinds)]
    rows = []
    for row in found.rows:
        candidate = row.candidate
        crop = None if candidate.macs is None else gflops(candidate.macs, convention)
        rows.append(
            (
                candidate.title + (" !" if row.prediction.extrapolated else ""),
                number(row.prediction.miou_percent),
                "-".join(map(number, row.prediction.interval_80)),
                *(cost_cell(row.priced.costs.get(kind), convention) for kind in found.kinds),
                "-" if crop is None else four_digits(crop),
                "-" if crop is None else four_digits(crop * row.windows),
                "-" if candidate.params is None else four_digits(candidate.params / 1e6),
                short(candidate.licence),
                EVIDENCE[row.prediction.support.standing],
            )
        )
    more = ("GFLOPs crop>", "image>", "params M>", "licence~", "evidence")
    return Table(columns(*headings, *more, spare=("params M", "image")), tuple(rows))
