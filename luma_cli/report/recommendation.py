"""A recommendation in a terminal or a pipe: the table, why each row stands there, and what to keep in mind."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from luma_cli.advise.question import TITLES, amount, slack, worst
from luma_cli.report.table import Table, columns, number, paragraphs, print_table
from luma_cli.units import FLOORS, BudgetKind, FlopConvention, gflops

if TYPE_CHECKING:
    from luma_cli.advise.recommend import Aside, Recommendation
    from luma_cli.evidence.evidence import Evidence
    from luma_cli.speed.quantity import Quantity


_NUM_OWN = 8
_NUM_ASIDE = 3
_HEADINGS: Mapping[BudgetKind, str] = {
    "macs": "GFLOPs",
    "params": "params M",
    "ms": "p50 ms",
    "fps": "fps",
    "images_per_second": "img/s",
    "bytes": "GiB",
    "joules": "J/img",
    "gpu_hours": "GPU-h",
}
# What the chance in the table is of.
_BEST = {
    "miou": "P(best): that nothing within budget has a higher mIoU",
    "miou-per-ms": "P(best): that nothing within budget has more mIoU per ms",
    "knee": "P(knee): that the front bends most here",
}
_OBJECTIVES = {"miou": "highest mIoU", "miou-per-ms": "highest mIoU per ms", "knee": "knee of the front"}


def print_recommendation(answer: Recommendation, file: TextIO | None = None) -> None:
    """Print the answer to `file` (default stdout): readable on a terminal, tab-separated with `why` in a pipe."""
    stream = file or sys.stdout
    print_table(_table(answer, with_why=not stream.isatty()), stream)
    if stream.isatty():
        paragraphs(((f"{row.rank:2}. ", f"{row.candidate.label}: {row.why}") for row in answer.rows), stream)
    paragraphs(_remarks(answer), stream)


def _table(answer: Recommendation, with_why: bool) -> Table:
    question = answer.question
    best = {"miou": "P(best)", "miou-per-ms": "P(best)", "knee": "P(knee)"}[question.objective]
    kinds = list(dict.fromkeys((*question.kinds, "macs")))
    headings = ["#>", "backbone", "px>", "mIoU>", "80%>", f"{best}>", "P(front)>"]
    headings += [f"{_HEADINGS[kind]}>" for kind in kinds]
    rows = []
    for row in answer.rows:
        low, high = row.prediction.interval_80
        rows.append(
            (
                f"{row.rank}{'=' if row.tie else ''}",
                row.candidate.title + (" !" if row.prediction.extrapolated else ""),
                str(row.candidate.resolution),
                number(row.prediction.miou_percent),
                f"{number(low)}-{number(high)}",
                *(_chance(row.best), _chance(row.on_front)),
                *(_cost(row.priced.costs.get(kind), question.convention) for kind in kinds),
                *([row.why] if with_why else []),
            )
        )
    asked = ", ".join(budget.text for budget in question.budgets) or "no budget"
    return Table(
        columns(*headings, *(["why~"] if with_why else [])),
        tuple(rows),
        title=f"{question.dataset} under {asked}, {_OBJECTIVES[question.objective]}: "
        f"{answer.num_within_budget} candidates within budget, {answer.num_ranked} with evidence",
        caption=f"mIoU in percent with its 80% interval, {answer.scale_note}"
        if answer.rows
        else "nothing is recommended: no evidence speaks of any candidate that surely fits",
    )


def _chance(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.01" if value < 0.005 else f"{value:.2f}"


def _cost(quantity: Quantity | None, convention: FlopConvention) -> str:
    """The value alone; a tilde where it is predicted."""
    if quantity is None:
        return "-"
    predicted = quantity.origin == "predicted"
    return ("~" if predicted else "") + amount(quantity.kind, quantity.value, convention, 3 if predicted else 4)


def _remarks(answer: Recommendation) -> Iterator[tuple[str, str]]:
    """What qualifies the table, a mark and a text each; the mark also indents what is wrapped."""
    yield "", ""
    yield from _decision(answer)
    yield from _reasons(answer)
    yield from _aside(answer.may_exceed, "may exceed a budget (the 80% interval of a predicted cost does)")
    yield from _aside(answer.unsupported, "within budget without evidence, not recommended")
    yield from _own_lines(answer)
    yield "", ""
    for note in answer.notes:
        yield "* ", note


def _decision(answer: Recommendation) -> Iterator[tuple[str, str]]:
    if answer.num_ties:
        alike = "are the knee equally often" if answer.question.objective == "knee" else "are as good within seed noise"
        first = "the cheapest that the evidence spans is first"
        if answer.rows[0].prediction.extrapolated:
            first = "the cheapest is first"
        yield "* ", f"tie (=): {answer.num_ties} candidates {alike}; {first}"
    if any(row.prediction.extrapolated for row in answer.rows):
        yield "* ", "!: extrapolated beyond the evidence; see the row's reason"
    if answer.rows:
        axis = answer.question.axis
        less = "time per image" if axis in FLOORS else TITLES[axis]
        yield "* ", f"{_BEST[answer.question.objective]}; P(front): that nothing with less {less} is as good"
    if any(row.prediction.support.other_heads for row in answer.rows):
        yield "* ", "other-head fact: a published result with another head than LUMA"
    if any(cost.origin == "predicted" for row in answer.rows for cost in row.priced.costs.values()):
        yield "* ", "~: predicted, not measured; the row's line has its interval"
    if answer.binding is not None:
        budget, chosen = answer.binding, answer.rows[0].priced
        cost = chosen.costs[budget.kind]
        end = "" if worst(cost, budget.is_floor) == cost.value else " at the dear end of the prediction"
        yield "* ", f"binding: {budget.text}, {slack(chosen, budget):.0%} slack{end}"
    if answer.price is not None:
        price, (low, high) = answer.price, answer.price.interval_80
        bought = f"{price.budget.text} would buy {price.points:+.1f} mIoU (80%: {low:+.1f} to {high:+.1f})"
        yield "* ", f"{bought}, with {price.candidate.label}"
    if answer.next_run:
        line, _, gain = answer.next_run.partition(" (")
        yield "* ", f"next run: {gain.removesuffix(')') or line}"
        if gain:
            yield "    ", line


def _reasons(answer: Recommendation) -> Iterator[tuple[str, str]]:
    """Of each row, with --why: what each property contributes, and the nearest results with their sources."""
    from luma_cli.accuracy.effects import USUAL_PARAMS

    for row in answer.rows:
        if row.reasons is None:
            continue
        yield "", ""
        yield (
            "",
            f"Why {row.candidate.label}: mIoU points, each with its standard deviation, against an average series, "
            f"pretraining and head, {USUAL_PARAMS / 1e6:.0f} M parameters and the usual crop",
        )
        for effect in row.reasons.effects:
            yield "    ", f"{effect.points:+6.2f} +- {effect.sd_points:.2f}  {effect.name}"
        for found in row.reasons.evidence:
            yield "  - ", _result(found)


def _result(found: Evidence) -> str:
    """One result of the evidence with its protocol and its source."""
    doubt = f"; doubtful: {found.doubtful}" if found.doubtful else ""
    source = found.source if not found.url or found.url in found.source else f"{found.source}, {found.url}"
    scale = replace(found.scale, recipe=found.recipe).label  # a frozen probe's scale repeats its source
    return f"{found.miou_percent:g} mIoU {found.backbone} at {found.size}, {scale} ({source}){doubt}"


def _aside(aside: Aside, what: str) -> Iterator[tuple[str, str]]:
    if not aside.count:
        return
    yield "", ""
    yield "", f"{aside.count} candidate{'s' if aside.count > 1 else ''} {what}, among them:"
    for row in aside.rows[:_NUM_ASIDE]:
        low, high = row.prediction.interval_80
        yield (
            "  - ",
            f"{row.candidate.label}: {number(row.prediction.miou_percent)} mIoU predicted "
            f"({number(low)} to {number(high)}); {row.why}",
        )


def _own_lines(answer: Recommendation) -> Iterator[tuple[str, str]]:
    """The user's own runs: what was measured, on which data, and why a run says nothing directly."""
    if not answer.measured_here:
        return
    yield "", ""
    yield "", "Measured here:"
    for row in answer.measured_here[:_NUM_OWN]:
        run = row.run
        cost = "" if run.macs is None else f", {number(gflops(run.macs, answer.question.convention))} GFLOPs"
        yield (
            "  - ",
            f"{run.backbone} at {run.resolution} px: {run.miou_percent:.1f} mIoU on {run.data} {run.split}{cost}, run "
            f"{run.run_id}; " + (f"set apart: {', '.join(row.why_not)}" if row.why_not else "evidence for this answer"),
        )
    if (more := len(answer.measured_here) - _NUM_OWN) > 0:
        yield "    ", f"and {more} more; --json has them all"
