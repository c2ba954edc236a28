"""Estimates of accuracy and of a training as tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO, get_args

from luma_cli.advise import question as held
from luma_cli.catalogue.heads import HeadName
from luma_cli.report.progress import duration
from luma_cli.report.table import Table, columns, print_json, print_table
from luma_cli.units import FlopConvention, convention_caption, gibibytes

if TYPE_CHECKING:
    from luma_cli.advise.estimate import Asked, Estimate
    from luma_cli.train.estimate import TrainingEstimate


def print_estimates(found: Sequence[Estimate], scale_note: str, convention: FlopConvention = "mac") -> None:
    """Print the estimates to stdout: one as a sheet, several as a table."""
    print_table(_sheet(found[0], scale_note, convention) if len(found) == 1 else _list(found, scale_note))


def _list(found: Sequence[Estimate], scale_note: str) -> Table:
    rows = []
    for each in found:
        predicted = each.prediction
        what = (each.asked.backbone or "(no name)", each.asked.resolution or "-", each.asked.head, each.asked.eval)
        if predicted is None:
            rows.append((*what, "-", "-", each.remark))
        else:
            said = "; ".join(filter(None, (predicted.support.line, predicted.reason, each.remark)))
            rows.append((*what, f"{predicted.miou_percent:.1f}", _span(predicted.interval_80), said))
    headings = columns("backbone", "res px>", "head", "eval", "mIoU %>", "80% interval>", "evidence~")
    datasets = sorted({each.asked.dataset for each in found if each.asked.dataset})
    title = f"{len(found)} estimates, {', '.join(datasets)}"
    return Table(headings, tuple(rows), title, _caption(found, scale_note))


def _sheet(each: Estimate, scale_note: str, convention: FlopConvention) -> Table:
    asked, predicted = each.asked, each.prediction
    rows = [
        ("head", asked.head),
        ("scored", asked.eval),
        ("resolution", f"{asked.resolution} px" if asked.resolution else "not given"),
    ]
    if each.subject is not None:
        size = "not known" if each.subject.params is None else f"{each.subject.params / 1e6:.1f} M parameters"
        guess = ", guessed from its name" if each.subject.params_guessed else ""
        rows += [
            ("series", each.subject.lineage or "not recognised"),
            ("pretraining", each.subject.objective),
            ("backbone size", size + guess),
        ]
    if each.remark:
        rows.append(("remark", each.remark))
    if predicted is not None:
        rows += [
            ("mIoU", f"{predicted.miou_percent:.1f} %"),
            *((f"{share}% interval", _span(getattr(predicted, f"interval_{share}"))) for share in (50, 80, 90)),
            ("evidence", predicted.support.line),
            ("extrapolated", predicted.reason or "no"),
        ]
    for kind, cost in each.costs.items():
        shown = held.describe(kind, cost.value, convention)
        span = f" ({held.describe(kind, cost.low, convention)} to {held.describe(kind, cost.high, convention)})"
        note = f"; {cost.note}" if cost.note else ""
        rows.append((held.TITLES[kind], f"{shown}, {cost.origin}{span if cost.low != cost.high else ''}{note}"))
    if not each.costs and each.subject is not None:
        rows.append(("cost", why_no_cost(asked)))
    # Memory is predicted for every device: where it is, a device was asked for.
    for kind in ("ms", "images_per_second") if "bytes" in each.costs else ():
        if kind not in each.costs:
            rows.append((held.TITLES[kind], f"not known; luma profile {asked.backbone}"))
    caption = "; ".join((_caption([each], scale_note), convention_caption(convention)))
    return Table(columns("estimate", "value~"), tuple(rows), f"{asked.backbone} on {asked.dataset}", caption)


def why_no_cost(asked: Asked) -> str:
    """Why no multiply-adds are known, and the command that counts them where there is one."""
    if not asked.resolution:
        return "not counted: no crop given; try --res 512"
    if asked.head not in get_args(HeadName):
        return f"not counted: luma attaches {', '.join(get_args(HeadName))}, not {asked.head}"
    from luma_cli.advise.estimate import countable_side  # a training's estimate does without the advisor

    if (side := countable_side(asked)) is None:
        return f"not counted: luma does not build {asked.backbone}; luma list shows what it builds"
    square = asked.resolution in (str(side), f"{side}x{side}")
    why = (
        "not in the cost table" if square else "not counted: luma counts square crops, of sizes that the backbone takes"
    )
    return f"{why}; try luma cost {asked.backbone} --res {side}" + (f" --head {asked.head}" * (asked.head != "luma"))


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.1f} to {interval[1]:.1f}"


def _caption(found: Sequence[Estimate], scale_note: str) -> str:
    luma = any(each.subject is not None and each.subject.head == "luma" for each in found)
    own = "intervals are of one training run"
    return f"{own}; LUMA {scale_note}" if luma else f"{own}, on the scale of each row's own head and protocol"


def print_estimate(estimate: TrainingEstimate, as_json: bool, file: TextIO | None = None) -> None:
    """Print time, memory and energy of a training to stdout: a line for each value, or JSON, schema 1."""
    out = file or sys.stdout
    if as_json:
        print_json(estimate, out)
        return
    for name, value in _training_lines(estimate):
        print(f"{name:<12}{value}" if out.isatty() else f"{name}\t{value}", file=out)


def _training_lines(found: TrainingEstimate) -> list[tuple[str, str]]:
    macs = "not counted" if found.macs_per_window is None else f"{found.macs_per_window / 1e9:.4g} GMACs per window"
    energy = "unknown: nothing counts it here" if found.energy_kwh is None else f"{found.energy_kwh:.3g} kWh of GPUs"
    spread = f"{found.step_seconds_low:.3g} to {found.step_seconds_high:.3g}"
    train, validation = duration(found.train_seconds), duration(found.validation_seconds)
    total = duration(found.train_seconds + found.validation_seconds)
    return [
        ("model", f"{found.backbone} + {found.head} at {found.resolution} px, {macs}"),
        ("parameters", f"{found.params:,}, of which {found.params_trained:,} are trained"),
        ("data", found.data),
        ("recipe", f"{found.recipe}: {found.num_steps:,} steps of {found.batch} images"),
        ("passes", f"{found.passes}, {found.dtype}"),
        ("BatchNorm", found.batch_norm),
        ("device", f"{found.num_processes} x {found.device}"),
        ("memory", f"{gibibytes(found.memory_bytes):.2f} GiB, peak of the steps that were tried"),
        ("step", f"{found.step_seconds:.3g} s (median of {found.num_probed}, {spread})"),
        ("time", f"{total}: {train} of steps, {validation} of {found.num_validations} validation(s)"),
        ("energy", energy),
    ]
