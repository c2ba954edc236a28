"""What a training will take, as a sheet or JSON. Imports no torch."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, TextIO

from luma_cli.report.training import duration
from luma_cli.units import gibibytes

if TYPE_CHECKING:
    from luma_cli.train.estimate import Estimate


def print_estimate(estimate: Estimate, as_json: bool, file: TextIO | None = None) -> None:
    """The estimate on stdout: `name<TAB>value` lines, or JSON, schema 1."""
    out = file or sys.stdout
    if as_json:
        print(json.dumps(estimate.to_json(), indent=1, allow_nan=False), file=out)
        return
    for name, value in lines(estimate):
        print(f"{name:<12}{value}" if out.isatty() else f"{name}\t{value}", file=out)


def lines(estimate: Estimate) -> list[tuple[str, str]]:
    """Names and values in the order of reading."""
    macs = (
        "not counted" if estimate.macs_per_window is None else f"{estimate.macs_per_window / 1e9:.4g} GMACs per window"
    )
    spread = f"{estimate.step_seconds_low:.3g} to {estimate.step_seconds_high:.3g}"
    energy = (
        "unknown: nothing counts it here" if estimate.energy_kwh is None else f"{estimate.energy_kwh:.3g} kWh of GPUs"
    )
    train, validation = duration(estimate.train_seconds), duration(estimate.validation_seconds)
    total = duration(estimate.train_seconds + estimate.validation_seconds)
    return [
        ("model", f"{estimate.backbone} + {estimate.head} at {estimate.resolution} px, {macs}"),
        ("parameters", f"{estimate.params:,}, of which {estimate.params_trained:,} are trained"),
        ("data", estimate.data),
        ("recipe", f"{estimate.recipe}: {estimate.num_steps:,} steps of {estimate.batch} images"),
        ("passes", f"{estimate.passes}, {estimate.dtype}"),
        ("BatchNorm", estimate.batch_norm),
        ("device", f"{estimate.num_processes} x {estimate.device}"),
        ("memory", f"{gibibytes(estimate.memory_bytes):.2f} GiB, peak of the steps that were tried"),
        ("step", f"{estimate.step_seconds:.3g} s (median of {estimate.num_probed}, {spread})"),
        ("time", f"{total}: {train} of steps, {validation} of {estimate.num_validations} validation(s)"),
        ("energy", energy),
    ]
