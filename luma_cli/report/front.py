"""The learned front and the runs to train next, in a terminal or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Set
from typing import TYPE_CHECKING, TextIO

from luma_cli.advise.costs import rounded
from luma_cli.advise.fronts import TIE_MIOU
from luma_cli.advise.question import TITLES
from luma_cli.report.recommendation import HEADINGS, cost_cell, own_lines
from luma_cli.report.table import Table, columns, number, paragraphs, print_table
from luma_cli.units import FLOORS, counted

if TYPE_CHECKING:
    from luma_cli.advise.front import FrontRow, LearnedFront, OwnDistance
    from luma_cli.advise.next import NextRun, NextRuns
    from luma_cli.advise.question import Priced

# Origins of a cost that need no tilde.
_SURE = frozenset({"exact", "measured"})


def print_front(front: LearnedFront, file: TextIO | None = None) -> None:
    """Print the front to `file` (default stdout): a table, and remarks below it."""
    stream = file or sys.stdout
    print_table(front_table(front), stream)
    paragraphs(_remarks(front), stream)


def front_table(front: LearnedFront) -> Table:
    """The rows of the front; a column for the origin of costs where there are several."""
    origins = {row.priced.costs[front.kind].origin for row in front.rows}
    several = len(origins) > 1
    rows = []
    for row in _shown(front):
        cost, prediction = row.priced.costs[front.kind], row.prediction
        rows.append(
            (
                row.candidate.title + (" !" if prediction.extrapolated else ""),
                str(row.candidate.resolution),
                *([cost.origin] if several else []),
                ("~" if cost.origin not in _SURE | {"predicted"} else "") + cost_cell(cost, front.question.convention),
                number(prediction.miou_percent),
                "-".join(map(number, prediction.interval_80)),
                f"{row.on_front:.0%}",
                "-" if row.per_doubling is None else f"{row.per_doubling:+.1f}",
                "/".join(map(number, row.attained)),
            )
        )
    costs = [*(["from"] if several else []), f"{HEADINGS[front.kind]}>"]
    return Table(
        columns("backbone", "px>", *costs, "mIoU>", "80%>", "P>", f"{_next_step(front)}>", "reached>"),
        tuple(rows),
        title=f"{front.question.dataset}: learned front over {TITLES[front.kind]}, {front.num_candidates} candidates",
        caption=_caption(front, origins),
    )


def _next_step(front: LearnedFront) -> str:
    return "next 1/2" if front.kind in FLOORS else "next 2x"


def _shown(front: LearnedFront) -> list[FrontRow]:
    """The rows that add more than a tie to the one shown before."""
    shown: list[FrontRow] = []
    for row in front.rows:
        if not shown or row.prediction.miou_percent - shown[-1].prediction.miou_percent > TIE_MIOU:
            shown.append(row)
    return shown


def _caption(front: LearnedFront, origins: Set[str]) -> str:
    title = TITLES[front.kind]
    change = f"half the {title}" if front.kind in FLOORS else f"up to twice the {title}"
    lines = [
        f"mIoU: predicted for one run in percent, {front.scale_note}, with its 80% interval",
        f"P: probability to be on the front. {_next_step(front)}: expected gain in mIoU points at {change}",
        "reached: mIoU of the best model at this cost (90/50/10% quantiles)",
    ]
    if len(origins) == 1:
        (origin,) = origins
        lines.append(f"{title}: {origin}{'' if origin in _SURE else ' (~)'}")
    elif origins - _SURE:
        lines.append(f"~: {title} not measured here")
    if (hidden := len(front.rows) - len(_shown(front))) > 0:
        lines.append(f"{hidden} more rows add {TIE_MIOU:g} mIoU or less to the one above; --json has them")
    if any(row.prediction.extrapolated for row in front.rows):
        lines.append("!: extrapolated beyond the sizes, tokens, families or objectives of the evidence")
    return "\n".join(lines)


def _remarks(front: LearnedFront) -> Iterator[tuple[str, str]]:
    """The remarks below the table, a mark and a text each."""
    if front.likely:
        yield "", ""
        yield "", "Other likely front members:"
    for row in front.likely:
        found = f"{row.prediction.miou_percent:.1f} mIoU ({'-'.join(map(number, row.prediction.interval_80))})"
        yield "  - ", f"{row.candidate.label}: {found}, {_cost(front, row.priced)}, P {row.on_front:.0%}"
    yield from own_lines("Your own runs, and the front at their cost:", [_distance(front, each) for each in front.own])
    yield "", ""
    yield from (("* ", note) for note in front.notes)


def _cost(front: LearnedFront, priced: Priced) -> str:
    return f"{cost_cell(priced.costs[front.kind], front.question.convention).lstrip('~')} {HEADINGS[front.kind]}"


def _distance(front: LearnedFront, each: OwnDistance) -> str:
    run = each.row.run
    said = f"{run.backbone} at {run.resolution} px: {run.miou_percent:.1f} mIoU, {_cost(front, each.priced)}"
    said += f", run {run.run_id}"
    if each.by is None or each.below is None:
        return f"{said}; cheaper than the whole front"
    if each.below <= 0:
        return f"{said}; {-each.below:.1f} above the front ({each.by.candidate.label} is expected to reach less)"
    return f"{said}; {each.below:.1f} below the front ({each.by.candidate.label})"


def print_next(found: NextRuns, file: TextIO | None = None) -> None:
    """Print the proposed runs to `file` (default stdout): each with its reason, its cost and its command."""
    paragraphs(_proposals(found), file or sys.stdout, comment="")


def _proposals(found: NextRuns) -> Iterator[tuple[str, str]]:
    hours = "" if found.hours is None else f" within {found.hours:g} GPU-hours"
    yield "", f"{found.question.dataset}: what to train next{hours}, by {found.ranked_by}"
    for place, run in enumerate(found.batch, 1):
        yield "", ""
        yield from _proposal(f"{place}. ", run)
    if found.batch:
        total = rounded(sum(run.cost.value for run in found.batch))
        yield "", ""
        yield "", f"Together: {total} {found.batch[0].cost.unit} for {counted(len(found.batch), 'run')}"
    exponents = [found.exponents] if found.exponents else []
    proxies = "Cheaper first look, to be compared with each other only:"
    for title, extra in ((proxies, found.proxies), ("For the scaling law:", exponents)):
        if extra:
            yield "", ""
            yield "", title
        for run in extra:
            yield from _proposal("  - ", run)
    yield "", ""
    yield "* ", f"mIoU as predicted, {found.scale_note}"
    yield from (("* ", note) for note in found.notes)


def _proposal(mark: str, run: NextRun) -> Iterator[tuple[str, str]]:
    low, high = run.prediction.interval_80
    predicted = f", {run.prediction.miou_percent:.1f} mIoU expected (80%: {low:.1f} to {high:.1f})"
    # A proxy trains too briefly to reach the predicted mIoU.
    said = "" if run.purpose == "proxy" else predicted
    yield mark, f"{run.candidate.label}: {run.cost.text} {run.cost.source}{said}; {run.why}"
    yield " " * len(mark), run.command
