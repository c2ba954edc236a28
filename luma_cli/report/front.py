"""The learned front and the runs worth training next, in a terminal or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING, TextIO

from luma_cli.advise.costs import rounded
from luma_cli.advise.fronts import TIE_MIOU
from luma_cli.advise.question import TITLES, amount
from luma_cli.report.table import Table, columns, number, paragraphs, print_table
from luma_cli.units import FLOORS, BudgetKind, FlopConvention, gflops, gibibytes

if TYPE_CHECKING:
    from luma_cli.advise.front import FrontRow, LearnedFront, OwnDistance
    from luma_cli.advise.next import NextRun, NextRuns
    from luma_cli.speed.quantity import Quantity


_NUM_OWN = 8
# Origins of a cost that need no tilde.
_SURE = frozenset({"exact", "measured"})
_HEADINGS: Mapping[BudgetKind, str] = {
    "macs": "GFLOPs",
    "params": "M params",
    "ms": "ms",
    "images_per_second": "img/s",
    "bytes": "GiB",
    "joules": "J/img",
}


def print_front(front: LearnedFront, file: TextIO | None = None) -> None:
    """Print the front to `file` (default stdout): a table, and remarks under it."""
    stream = file or sys.stdout
    print_table(front_table(front), stream)
    paragraphs(_remarks(front), stream)


def front_table(front: LearnedFront) -> Table:
    """The rows of the front; a column for the origin of costs where there are several."""
    origins = {row.priced.costs[front.kind].origin for row in front.rows}
    source = ["from"] if len(origins) > 1 else []
    rows = []
    for row in _shown(front):
        cost, prediction = row.priced.costs[front.kind], row.prediction
        rows.append(
            (
                row.candidate.title + (" !" if prediction.extrapolated else ""),
                str(row.candidate.resolution),
                *([cost.origin] if source else []),
                ("" if cost.origin in _SURE else "~") + _amount(front, cost),
                number(prediction.miou_percent),
                _ends(prediction.interval_80),
                f"{row.on_front:.0%}",
                "-" if row.per_doubling is None else f"{row.per_doubling:+.1f}",
                "/".join(number(each) for each in row.attained),
            )
        )
    cost_headings = [*source, f"{_HEADINGS[front.kind]}>"]
    return Table(
        columns("backbone", "px>", *cost_headings, "mIoU>", "80%>", "P>", f"{_dearer(front)}>", "reached>"),
        tuple(rows),
        title=f"{front.question.dataset}: learned front over {TITLES[front.kind]}, {front.num_candidates} candidates",
        caption=_caption(front, origins),
    )


def _dearer(front: LearnedFront) -> str:
    """The next step towards what costs more: twice a cost, half a rate."""
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
    lines = [
        f"mIoU in percent as predicted for one run, {front.scale_note}, with the central 80% interval",
        f"P: chance to be on the front. {_dearer(front)}: mIoU points that "
        f"{'half' if front.kind in FLOORS else 'twice'} the {title} would add",
        "reached: mIoU that the best at this cost has, whichever it is, with 90/50/10% probability",
    ]
    if len(origins) == 1:
        (origin,) = origins
        lines.append(f"{title}: {origin}{'' if origin in _SURE else ' (~)'}")
    elif origins - _SURE:
        lines.append(f"~: {title} not measured here")
    if (hidden := len(front.rows) - len(_shown(front))) > 0:
        lines.append(f"{hidden} more rows add {TIE_MIOU:g} mIoU or less to the one above; --json has them")
    if any(row.prediction.extrapolated for row in front.rows):
        lines.append("!: extrapolated, beyond the sizes, tokens, families or objectives of the evidence")
    return "\n".join(lines)


def _amount(front: LearnedFront, quantity: Quantity) -> str:
    return amount(front.kind, quantity.value, front.question.convention, 3 if quantity.origin == "predicted" else 4)


def _ends(ends: tuple[float, float]) -> str:
    return f"{number(ends[0])}-{number(ends[1])}"


def _remarks(front: LearnedFront) -> Iterator[tuple[str, str]]:
    """What belongs to the front and is no row of it; a mark and a text each."""
    if front.likely:
        yield "", ""
        yield "", "Off this envelope, yet likely on the front:"
        for row in front.likely:
            found = f"{row.prediction.miou_percent:.1f} mIoU ({_ends(row.prediction.interval_80)})"
            cost = f"{_amount(front, row.priced.costs[front.kind])} {_HEADINGS[front.kind]}"
            yield "  - ", f"{row.candidate.label}: {found}, {cost}, P {row.on_front:.0%}"
    if front.own:
        yield "", ""
        yield "", "Your own runs, against the front at their cost:"
        for each in front.own[:_NUM_OWN]:
            yield "  - ", _distance(front, each)
        if (more := len(front.own) - _NUM_OWN) > 0:
            yield "    ", f"and {more} more; --json has them all"
    yield "", ""
    for note in front.notes:
        yield "* ", note


def in_unit(kind: BudgetKind, value: float, convention: FlopConvention) -> float:
    """A cost as tables and axes count it: GFLOPs, millions of parameters, GiB; times, rates and energy as they are."""
    if kind == "macs":
        return gflops(value, convention)
    return gibibytes(value) if kind == "bytes" else value / (1e6 if kind == "params" else 1)


def _distance(front: LearnedFront, each: OwnDistance) -> str:
    run = each.row.run
    cost = f"{_amount(front, each.priced.costs[front.kind])} {_HEADINGS[front.kind]}"
    said = f"{run.backbone} at {run.resolution} px: {run.miou_percent:.1f} mIoU, {cost}, run {run.run_id}"
    if each.by is None or each.below is None:
        return f"{said}; cheaper than all that is on the front"
    if each.below <= 0:
        return f"{said}; {-each.below:.1f} above the front ({each.by.candidate.label} is expected to reach less)"
    return f"{said}; {each.below:.1f} below the front ({each.by.candidate.label})"


def print_next(found: NextRuns, file: TextIO | None = None) -> None:
    """Print the proposed runs to `file` (default stdout): each with its reason, its cost, and the line to type."""
    paragraphs(_proposals(found), file or sys.stdout, comment="")


def _proposals(found: NextRuns) -> Iterator[tuple[str, str]]:
    hours = "" if found.hours is None else f" within {found.hours:g} GPU-hours"
    yield "", f"{found.question.dataset}: what to train next{hours}, by {found.ranked_by}"
    for place, run in enumerate(found.batch, 1):
        yield "", ""
        yield from _proposal(f"{place}. ", run)
    if found.batch:
        total = sum(run.cost.value for run in found.batch)
        runs = "1 run" if len(found.batch) == 1 else f"{len(found.batch)} runs"
        yield "", ""
        yield "", f"Together: {rounded(total)} {found.batch[0].cost.unit} for {runs}"
    if found.proxies:
        yield "", ""
        yield "", "Cheaper first look, to be compared with each other only:"
        for run in found.proxies:
            yield from _proposal("  - ", run)
    if found.exponents is not None:
        yield "", ""
        yield "", "For the scaling law:"
        yield from _proposal("  - ", found.exponents)
    yield "", ""
    yield "* ", f"mIoU as predicted, {found.scale_note}"
    for note in found.notes:
        yield "* ", note


def _proposal(mark: str, run: NextRun) -> Iterator[tuple[str, str]]:
    low, high = run.prediction.interval_80
    predicted = f"{run.prediction.miou_percent:.1f} mIoU expected (80%: {low:.1f} to {high:.1f})"
    said = "" if run.purpose == "proxy" else f", {predicted}"
    yield mark, f"{run.candidate.label}: {run.cost.text} {run.cost.source}{said}; {run.why}"
    yield " " * len(mark), run.command
