"""A recommendation in a terminal or a pipe: the table, the reason for each row, and remarks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from luma_cli.advise.question import TITLES, amount, slack, worst
from luma_cli.report.table import Table, columns, number, paragraphs, print_table
from luma_cli.units import FLOORS, BudgetKind, FlopConvention, gflops

if TYPE_CHECKING:
    from luma_cli.advise.recommend import Aside, Recommendation
    from luma_cli.evidence.evidence import Evidence
    from luma_cli.evidence.own_runs import OwnRow
    from luma_cli.speed.quantity import Quantity


_NUM_OWN = 8
_NUM_ASIDE = 3
HEADINGS: dict[BudgetKind, str] = {
    "macs": "GFLOPs",
    "params": "params M",
    "ms": "p50 ms",
    "fps": "fps",
    "images_per_second": "img/s",
    "bytes": "GiB",
    "joules": "J/img",
    "gpu_hours": "GPU-h",
}
# Objective -> the heading of its chance, what that is the chance of, and the objective in words.
_OBJECTIVES = {
    "miou": ("P(best)", "nothing within budget has a higher mIoU", "highest mIoU"),
    "miou-per-ms": ("P(best)", "nothing within budget has more mIoU per ms", "highest mIoU per ms"),
    "knee": ("P(knee)", "the front bends most here", "knee of the front"),
}


def print_recommendation(answer: Recommendation, file: TextIO | None = None) -> None:
    """Print the answer to `file` (default stdout): readable on a terminal, tab-separated with `why` in a pipe."""
    stream = file or sys.stdout
    print_table(_table(answer, with_why=not stream.isatty()), stream)
    if stream.isatty():
        paragraphs(((f"{row.rank:2}. ", f"{row.candidate.label}: {row.why}") for row in answer.rows), stream)
    paragraphs(_remarks(answer), stream)


def _table(answer: Recommendation, with_why: bool) -> Table:
    question = answer.question
    chance, _, objective = _OBJECTIVES[question.objective]
    kinds = list(dict.fromkeys((*question.kinds, "macs")))
    headings = ["#>", "backbone", "px>", "mIoU>", "80%>", f"{chance}>", "P(front)>"]
    headings += [*(f"{HEADINGS[kind]}>" for kind in kinds), *(["why~"] if with_why else [])]
    rows = [
        (
            f"{row.rank}{'=' if row.tie else ''}",
            row.candidate.title + (" !" if row.prediction.extrapolated else ""),
            str(row.candidate.resolution),
            number(row.prediction.miou_percent),
            "-".join(map(number, row.prediction.interval_80)),
            *(_chance(row.best), _chance(row.on_front)),
            *(cost_cell(row.priced.costs.get(kind), question.convention) for kind in kinds),
            *([row.why] if with_why else []),
        )
        for row in answer.rows
    ]
    asked = ", ".join(budget.text for budget in question.budgets) or "no budget"
    none = "nothing is recommended: no candidate that surely fits has evidence"
    return Table(
        columns(*headings),
        tuple(rows),
        title=f"{question.dataset} under {asked}, {objective}: "
        f"{answer.num_within_budget} candidates within budget, {answer.num_ranked} with evidence",
        caption=f"mIoU in percent with its 80% interval, {answer.scale_note}" if answer.rows else none,
    )


def _chance(value: float | None) -> str:
    return "-" if value is None else "<0.01" if value < 0.005 else f"{value:.2f}"


def cost_cell(quantity: Quantity | None, convention: FlopConvention) -> str:
    """The value without its unit; predicted ones with a tilde and three digits, others with four."""
    if quantity is None:
        return "-"
    predicted = quantity.origin == "predicted"
    return ("~" if predicted else "") + amount(quantity.kind, quantity.value, convention, 3 if predicted else 4)


def _remarks(answer: Recommendation) -> Iterator[tuple[str, str]]:
    """The remarks below the table, a mark and a text each."""
    yield "", ""
    yield from (("* ", text) for text in _decision(answer))
    if answer.next_run:
        line, _, gain = answer.next_run.partition(" (")
        yield "* ", f"next run: {gain.removesuffix(')') or line}"
        if gain:
            yield "    ", line
    yield from _reasons(answer)
    yield from _aside(answer.may_exceed, "may exceed a budget (at the expensive end of a predicted cost)")
    yield from _aside(answer.unsupported, "fit the budget but have no evidence and are not recommended")
    yield from own_lines("Measured here:", [_own(row, answer) for row in answer.measured_here])
    yield "", ""
    yield from (("* ", note) for note in answer.notes)


def _decision(answer: Recommendation) -> Iterator[str]:
    """Ties, what the columns mean, and which budget decides."""
    costs = [cost for row in answer.rows for cost in row.priced.costs.values()]
    if answer.num_ties:
        alike = "are the knee equally often" if answer.question.objective == "knee" else "are as good within seed noise"
        spanned = "" if answer.rows[0].prediction.extrapolated else " that the evidence spans"
        yield f"tie (=): {answer.num_ties} candidates {alike}; the cheapest{spanned} is first"
    if any(row.prediction.extrapolated for row in answer.rows):
        yield "!: extrapolated beyond the evidence; see the row's reason"
    if answer.rows:
        axis = answer.question.axis
        chance, event, _ = _OBJECTIVES[answer.question.objective]
        less = "time per image" if axis in FLOORS else TITLES[axis]
        yield f"{chance}: probability that {event}; P(front): that nothing with less {less} is as good"
    if any(row.prediction.support.other_heads for row in answer.rows):
        yield "other-head fact: a published result with another head than LUMA"
    if any(cost.origin == "predicted" for cost in costs):
        yield "~: predicted, not measured; the row's line has its interval"
    if answer.binding is not None:
        budget, chosen = answer.binding, answer.rows[0].priced
        cost = chosen.costs[budget.kind]
        end = "" if worst(cost, budget.is_floor) == cost.value else " at the expensive end of the prediction"
        yield f"binding: {budget.text}, {slack(chosen, budget):.0%} slack{end}"
    if answer.price is not None:
        price, (low, high) = answer.price, answer.price.interval_80
        gain = f"{price.budget.text} would buy {price.points:+.1f} mIoU (80%: {low:+.1f} to {high:+.1f})"
        yield f"{gain}, with {price.candidate.label}"


def _reasons(answer: Recommendation) -> Iterator[tuple[str, str]]:
    """For each row with --why: the effect of each property, and the nearest results with their sources."""
    from luma_cli.accuracy.effects import USUAL_PARAMS

    for row in answer.rows:
        if row.reasons is None:
            continue
        yield "", ""
        yield (
            "",
            f"Why {row.candidate.label}: mIoU points +- standard deviation, relative to an average series, "
            f"pretraining and head, {USUAL_PARAMS / 1e6:.0f} M parameters and the usual crop",
        )
        for effect in row.reasons.effects:
            yield "    ", f"{effect.points:+6.2f} +- {effect.sd_points:.2f}  {effect.name}"
        yield from (("  - ", _result(found)) for found in row.reasons.evidence)


def _result(found: Evidence) -> str:
    doubt = f"; doubtful: {found.doubtful}" if found.doubtful else ""
    source = found.source if not found.url or found.url in found.source else f"{found.source}, {found.url}"
    scale = replace(found.scale, recipe=found.recipe).label  # a frozen probe's scale repeats its source
    return f"{found.miou_percent:g} mIoU {found.backbone} at {found.size}, {scale} ({source}){doubt}"


def _aside(aside: Aside, what: str) -> Iterator[tuple[str, str]]:
    if aside.count:
        yield "", ""
        yield "", f"{aside.count} {what}; the top {len(aside.rows[:_NUM_ASIDE])}:"
    for row in aside.rows[:_NUM_ASIDE]:
        miou, interval = number(row.prediction.miou_percent), " to ".join(map(number, row.prediction.interval_80))
        yield "  - ", f"{row.candidate.label}: {miou} mIoU predicted ({interval}); {row.why}"


def _own(row: OwnRow, answer: Recommendation) -> str:
    run = row.run
    cost = "" if run.macs is None else f", {number(gflops(run.macs, answer.question.convention))} GFLOPs"
    use = f"not used: {', '.join(row.why_not)}" if row.why_not else "evidence for this answer"
    score = f"{run.miou_percent:.1f} mIoU on {run.data} {run.split}"
    return f"{run.backbone} at {run.resolution} px: {score}{cost}, run {run.run_id}; {use}"


def own_lines(title: str, lines: list[str]) -> Iterator[tuple[str, str]]:
    """The user's own runs under a title, the first eight; nothing where there are none."""
    if lines:
        yield "", ""
        yield "", title
    yield from (("  - ", line) for line in lines[:_NUM_OWN])
    if len(lines) > _NUM_OWN:
        yield "    ", f"and {len(lines) - _NUM_OWN} more; --json has them all"
