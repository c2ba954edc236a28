"""A recommendation in a terminal or a pipe: one sentence, at most five rows, three notes, and what to type next.

Everything else is behind `--why`: the reason of each row, effects and results, what may exceed a budget, own runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from luma_cli.accuracy.sightings import Standing
from luma_cli.advise.question import amount, describe, explain, slack, worst
from luma_cli.catalogue.licences import is_commercial, marked, short
from luma_cli.report.table import (
    Table,
    columns,
    continued,
    drawn_height,
    four_digits,
    number,
    paragraphs,
    print_table,
    wrapped,
)
from luma_cli.units import PER_CROP, BudgetKind, FlopConvention, gflops

if TYPE_CHECKING:
    from luma_cli.advise.recommend import Aside, Recommendation, Recommended
    from luma_cli.advise.why_not import WhyNot
    from luma_cli.evidence.evidence import Evidence
    from luma_cli.evidence.own_runs import OwnRow
    from luma_cli.speed.quantity import Quantity


_NUM_OWN = 8
_NUM_ASIDE = 3
_NUM_NOTES, _MOST_NOTES = 3, 1000  # notes, characters of all of them
MOST_LINES = 25  # on a terminal
HEADINGS: dict[BudgetKind, str] = {
    "macs": "GFLOPs",
    "params": "params M",
    "ms": "p50 ms",
    "fps": "fps",
    "images_per_second": "crops/s",
    "bytes": "GiB",
    "joules": "J/crop",
    "gpu_hours": "GPU-h",
    "training_bytes": "GiB train",
    "macs_image": "GFLOPs/image",
    "ms_image": "ms/image",
    "fps_image": "fps",
    "images_per_second_image": "images/s",
    "joules_image": "J/image",
}
_GOALS = {"miou": "", "miou-per-ms": ", most mIoU per ms", "knee": ", the knee of the front"}
EVIDENCE: dict[Standing, str] = {
    "own run": "own run",
    "same weights": "weights",
    "same size": "size",
    "same series": "series",
    "none": "none",
}


def print_recommendation(answer: Recommendation, file: TextIO | None = None, *, why: bool = False) -> None:
    """Print the answer to `file` (default stdout): drawn on a terminal, tab-separated in a pipe. why: all there is."""
    stream = file or sys.stdout
    sentence, is_drawn = [("", _sentence(answer))], stream.isatty()
    paragraphs(sentence, stream)
    left = MOST_LINES - _height(sentence)
    if answer.rows:
        table = _table(answer, is_drawn)
        print_table(table, stream)
        left -= drawn_height(table) if is_drawn else 0
    first, notes, last = list(_asides(answer)), list(_notes(answer))[:_NUM_NOTES], list(_next(answer))
    left -= _height(first) + _height(last)
    kept, characters = [], _MOST_NOTES
    for note in (("* ", text) for text in notes):
        if len(note[1]) > characters or (is_drawn and _height([note]) > left):
            continue  # --why has all of them
        characters, left = characters - len(note[1]), left - _height([note])
        kept.append(note)
    paragraphs([*first, *kept, *last, *(_everything(answer) if why else ())], stream)


def _height(lines: Sequence[tuple[str, str]]) -> int:
    """Lines on this terminal."""
    return sum(
        (continued(text, mark) if text.startswith("luma ") else wrapped(text, mark)).count("\n") + 1
        for mark, text in lines
    )


def _sentence(answer: Recommendation) -> str:
    """What to do, in one sentence."""
    question = answer.question
    asked = " and ".join(budget.text for budget in question.budgets) or "no budget"
    if not answer.rows:
        if answer.may_exceed.rows:
            row = answer.may_exceed.rows[0]
            return f"Nothing surely fits {asked}; {_named(row)} may, by a predicted cost: measure it"
        return f"Nothing that fits {asked} has published results on {question.dataset}, and nothing is recommended"
    first = answer.rows[0]
    miou, (low, high) = first.prediction.miou_percent, first.prediction.interval_80
    licence = first.candidate.licence or "unknown"
    use = "" if is_commercial(first.candidate.licence) else " (not for commercial use)"
    said = {"none": "A guess: train", "same series": "By results of its series alone, train"}
    start = "A guess: train" if first.prediction.extrapolated else said.get(first.prediction.support.standing, "Train")
    costs = " and ".join(_costs(answer, first))
    return (
        f"{start} {_named(first)}: about {miou:.0f} mIoU ({low:.0f}-{high:.0f}) on {question.dataset} for {costs}"
        f"{_GOALS[question.objective]}, licence {licence}{use}"
    )


def _named(row: Recommended) -> str:
    return row.candidate.label


def _costs(answer: Recommendation, row: Recommended) -> Iterator[str]:
    """The costs that were asked for, of which compute is exact per crop and per image."""
    question = answer.question
    for kind in question.kinds:
        quantity = row.priced.costs[kind]
        if PER_CROP.get(kind, kind) != "macs":
            about = "about " if quantity.origin == "predicted" else ""
            yield about + describe(kind, quantity.value, question.convention, 3)
    if row.candidate.macs is not None:
        crop = gflops(row.candidate.macs, question.convention)
        yield f"{four_digits(crop)} GFLOPs a crop ({four_digits(crop * row.windows)} an image)"


def _table(answer: Recommendation, is_drawn: bool) -> Table:
    """The rows; a narrow drawing does without costs that were not asked for."""
    question = answer.question
    kinds = [kind for kind in question.kinds if PER_CROP.get(kind, kind) not in ("macs", "params")]
    headings = ["backbone~", "px>", "mIoU>", "80%>", *(f"{HEADINGS[kind]}>" for kind in kinds)]
    headings += ["GFLOPs crop>", "image>", "params M>", "licence~", "evidence"]
    spare = ("image", "params M", "80%", "GFLOPs crop") if kinds else ("params M", "image", "80%")
    rows = []
    for row in answer.rows:
        candidate, convention = row.candidate, question.convention
        crop = None if candidate.macs is None else gflops(candidate.macs, convention)
        rows.append(
            (
                (_drawn_name(candidate.title) if is_drawn else candidate.title)
                + (" !" if row.prediction.extrapolated else ""),
                str(candidate.resolution),
                number(row.prediction.miou_percent),
                "-".join(map(number, row.prediction.interval_80)),
                *(cost_cell(row.priced.costs.get(kind), convention) for kind in kinds),
                "-" if crop is None else four_digits(crop),
                "-" if crop is None else four_digits(crop * row.windows),
                "-" if candidate.params is None else four_digits(candidate.params / 1e6),
                short(candidate.licence) if is_drawn else marked(candidate.licence),
                EVIDENCE[row.prediction.support.standing],
            )
        )
    return Table(columns(*headings, spare=spare), tuple(rows))


def cost_cell(quantity: Quantity | None, convention: FlopConvention) -> str:
    """The value without its unit; predicted ones with a tilde and three digits, others with four."""
    if quantity is None:
        return "-"
    predicted = quantity.origin == "predicted"
    return ("~" if predicted else "") + amount(quantity.kind, quantity.value, convention, 3 if predicted else 4)


def _drawn_name(title: str) -> str:
    """The name with the shorter spelling of ImageNet labels, which every command takes too."""
    return title.replace(".supervised_in", ".in").replace(".distilled_in", ".dist_in")


def _asides(answer: Recommendation) -> Iterator[tuple[str, str]]:
    """The best guess, and what a measurement might put first."""
    if (guess := answer.untested) is not None:
        low, high = guess.prediction.interval_80
        chance = f"better with probability {guess.better:.2f}" if guess.better is not None else ""
        miou = f"{number(guess.prediction.miou_percent)} mIoU ({number(low)}-{number(high)})"
        yield "", f"untested, could be better: {_named(guess)}, {miou}, {chance}"
    if answer.rows and answer.promising:
        row = answer.promising[0]
        kinds = [kind for kind in answer.question.kinds if row.priced.costs[kind].origin == "predicted"]
        costs = ", ".join(explain(row.priced.costs[kind], answer.question.convention) for kind in kinds)
        yield "", f"may fit once measured (--measure): {_named(row)}, {costs}"


def _next(answer: Recommendation) -> Iterator[tuple[str, str]]:
    """The line to type next."""
    if answer.command:
        yield "", "next:"
        yield "  ", answer.command
    elif answer.next_run:
        line, _, gain = answer.next_run.partition(" (")
        yield "", f"next: {gain.removesuffix(')')}" if gain else line
        if gain:
            yield "  ", line


def _notes(answer: Recommendation) -> Iterator[str]:
    """What a reader must know, the most important first."""
    rows, question = answer.rows, answer.question
    if not rows:
        yield from answer.notes
        return
    if any(row.prediction.extrapolated for row in rows):
        yield "!: extrapolated beyond the results"
    others = rows[1:]
    tied = [_named(row) for row in others if row.tie and not row.likely_better]
    ahead = [f"{_named(row)} (P {row.better:.2f})" for row in others if row.likely_better]
    said = [f"could as well be first: {', '.join(tied)}"] if tied else []
    said += [f"likely better, but with less direct evidence: {', '.join(ahead)}"] if ahead else []
    if said:
        yield "; ".join([*said, "more direct evidence, then less cost decides"] if tied else said)
    crops = "a crop is one forward pass; an image of "
    size = "the dataset's size" if question.image is None else f"{question.image[1]}x{question.image[0]} px"
    windows = sorted({round(row.windows, 2) for row in rows})
    span = f"{windows[0]:g}" + (f" to {windows[-1]:g}" if len(windows) > 1 else "")
    if "bytes" in question.kinds:
        yield "GiB: peak of inference, one crop, batch 1; for training ask e.g. 8GiB-train"
    if "training_bytes" in question.kinds:
        yield "training memory is of one pass; luma train reaches its batch by smaller passes: --train-batch 2"
    yield from (note for note in answer.notes if not note.startswith("GFLOPs: "))
    yield f"mIoU of one training run, 80% interval, {answer.scale_note}"
    yield f"{crops}{size} takes {span} windows"


def _everything(answer: Recommendation) -> Iterator[tuple[str, str]]:
    """All that is behind --why."""
    yield "", ""
    counts = f"{answer.num_within_budget} candidates within budget, {answer.num_direct} with direct evidence"
    yield "", f"Why: {counts}"
    yield "", "evidence: fine-tuned results of these weights, of its size and objective, of its series, or none"
    for row in answer.rows:
        chances = [] if row.best is None else [f"P(best) {_chance(row.best)}"]
        chances += [] if row.better is None else [f"P(better than the first) {_chance(row.better)}"]
        yield f"{row.rank:2}. ", f"{_named(row)}: {row.why}; {', '.join(chances)}".removesuffix("; ")
    if answer.untested is not None:
        yield "  - ", f"untested {_named(answer.untested)}: {answer.untested.why}"
    yield from (("* ", text) for text in _decision(answer))
    if answer.next_run:
        line, _, gain = answer.next_run.partition(" (")
        yield "* ", f"most informative run: {gain.removesuffix(')') or line}"
        if gain:
            yield "    ", line
    yield from _reasons(answer)
    yield from _aside(answer.may_exceed, "may exceed a budget (at the expensive end of a predicted cost)")
    yield from _aside(answer.unsupported, "fit the budget but have no results and are not recommended")
    yield from own_lines("Your own runs:", [_own(row, answer) for row in answer.measured_here])
    yield "", ""
    yield from (("* ", note) for note in (*answer.notes, f"mIoU {answer.scale_note}"))


def _chance(value: float) -> str:
    return "<0.01" if value < 0.005 else f"{value:.2f}"


def _decision(answer: Recommendation) -> Iterator[str]:
    """Which budget decides, and what more of it would buy."""
    if any(cost.origin == "predicted" for row in answer.rows for cost in row.priced.costs.values()):
        yield "~: predicted, not measured; the row's line has its interval"
    if answer.binding is not None:
        budget, chosen = answer.binding, answer.rows[0].priced
        cost = chosen.costs[budget.kind]
        end = "" if worst(cost, budget.is_floor) == cost.value else " at the expensive end of the prediction"
        yield f"nearest budget: {budget.text}, {slack(chosen, budget):.0%} left{end}"
    if answer.price is not None:
        price, (low, high) = answer.price, answer.price.interval_80
        gain = f"{price.budget.text} would buy {price.points:+.1f} mIoU (80%: {low:+.1f} to {high:+.1f})"
        yield f"{gain}, with {price.candidate.label}"


def _reasons(answer: Recommendation) -> Iterator[tuple[str, str]]:
    """For each row: the effect of each property, and the nearest results with their sources."""
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


def print_why_not(found: WhyNot, file: TextIO | None = None) -> None:
    """Print where a backbone stands: its own row, what is against it, what would put it first."""
    row, (low, high) = found.row, found.row.prediction.interval_80
    macs = row.candidate.macs
    cost = "" if macs is None else f", {four_digits(gflops(macs, found.question.convention))} GFLOPs a crop"
    evidence = f"evidence: {row.prediction.support.line}"
    miou = f"{number(row.prediction.miou_percent)} mIoU ({number(low)}-{number(high)})"
    lines = [("", f"{row.candidate.label}: {miou}{cost}, licence {marked(row.candidate.licence)}; {evidence}")]
    if not found.reasons:
        lines.append(("", "it is the first choice"))
    lines += [("* ", f"not first: {reason}" if at == 0 else reason) for at, reason in enumerate(found.reasons)]
    if found.remedy:
        lines.append(("* ", f"what would put it first: {found.remedy}"))
    if found.command:
        lines.append(("  ", found.command))
    paragraphs(lines, file or sys.stdout, comment="")
