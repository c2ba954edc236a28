"""How well speed carries over between devices: every shipped device predicted from the others.

    python -m luma_cli.speed.audit

One row per hardware setting: its own device is left out, `k` of its classifiers are measured, those that luma chooses,
and all others are predicted. A second table tells of small images to large ones: fitted below 384 px, asked from 512.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from luma_cli.speed.quantity import Workload
from luma_cli.speed.reference import Classifier, Setting, Table, lineup_in, load_table, reference_of
from luma_cli.speed.times import to_measure
from luma_cli.speed.transfer import Floats, posterior
from luma_cli.to_json import to_json

NUM_MEASURED = (1, 5, 20)
_Z80, _Z90 = 1.2815515594, 1.6448536270
_SMALL, _LARGE = 383, 512


@dataclass(frozen=True, slots=True)
class Error:
    """Of `num` predictions: median relative error in percent, bias of log time, shares inside 80 and 90 % intervals."""

    num: int
    median_percent: float
    bias: float
    coverage_80: float
    coverage_90: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """One setting predicted from other devices. anchor: the classifier that was measured first. errors: by number of
    measurements. has_class: whether a setting of its class is left when its device is left out.
    """

    setting: str
    anchor: str
    has_class: bool
    errors: dict[int, Error]


@dataclass(frozen=True, slots=True)
class SpeedAudit:
    """transfers: per setting. pooled: over all predictions for settings with a class. upsizing: by setting, of sizes
    from 512 px when nothing above 383 px was seen; networks that the table has smaller, and those that it has not.
    """

    transfers: tuple[Transfer, ...]
    pooled: dict[int, Error]
    upsizing: dict[str, tuple[Error | None, Error | None]]

    def to_json(self) -> Any:
        """Plain values."""
        return to_json(self)


def audit(table: Table | None = None) -> SpeedAudit:
    """The audit of the shipped table, or of another."""
    found = load_table() if table is None else table
    done = [_transfer(found, setting) for setting in found.settings]
    with_class = [residuals for transfer, residuals in done if transfer.has_class]
    pooled = {k: _error(np.concatenate([residuals[k] for residuals in with_class], axis=1)) for k in NUM_MEASURED}
    upsizing = {setting.label: _upsizing(found, setting) for setting in found.settings}
    return SpeedAudit(tuple(transfer for transfer, _ in done), pooled, upsizing)


def _transfer(table: Table, setting: Setting) -> tuple[Transfer, dict[int, Floats]]:
    """The setting's transfer, and per number of measurements residuals and standard deviations (2, n)."""
    others = lineup_in(table, setting.speed_class, without=setting.device_name)
    rows, log_ms = _rows(table, setting)
    points = others.reference.points([workload_of(row) for row in rows])
    order = to_measure(points, max(NUM_MEASURED), spread=others.spread)
    residuals = {}
    for num in NUM_MEASURED:
        seen = order[:num]
        rest = [index for index in range(len(rows)) if index not in set(seen)]
        said = posterior(points[rest], points[seen], log_ms[seen], others.spread)
        residuals[num] = np.stack([log_ms[rest] - said.mean, np.sqrt(said.variance)])
    errors = {num: _error(found) for num, found in residuals.items()}
    name = f"{rows[order[0]].architecture} at {rows[order[0]].resolution} px"
    return Transfer(setting.label, name, bool(others.reference.by_name), errors), residuals


def _upsizing(table: Table, setting: Setting) -> tuple[Error | None, Error | None]:
    """Errors at large sizes on a device whose small sizes are known: networks known smaller, and unknown ones."""
    reference = reference_of(table, [setting], own=True, max_side=_SMALL)
    rows, log_ms = _rows(table, setting)
    large = [index for index, row in enumerate(rows) if row.resolution >= _LARGE]
    points = reference.points([workload_of(rows[index]) for index in large])
    residuals = np.stack([log_ms[large] - points.base, np.sqrt(points.variance + 0.02**2)])
    known = np.array([reference.has(workload_of(rows[index])) for index in large], dtype=bool)
    one, other = (_error(each) if each.shape[1] else None for each in (residuals[:, known], residuals[:, ~known]))
    return one, other


def _rows(table: Table, setting: Setting) -> tuple[list[Classifier], Floats]:
    column = table.settings.index(setting)
    rows = [row for row in table.rows if row.milliseconds[column] is not None]
    return rows, np.log(np.array([row.milliseconds[column] for row in rows], dtype=float))


def workload_of(row: Classifier) -> Workload:
    """The classifier as a workload without a head."""
    return Workload(row.architecture, row.resolution, row.family, int(row.macs), head="none")


def _error(residuals: Floats) -> Error:
    """residuals: (2, n), those of log time and their standard deviations."""
    z = np.abs(residuals[0] / residuals[1])
    percent = 100 * float(np.expm1(np.median(np.abs(residuals[0]))))
    inside = [float((z <= bound).mean()) for bound in (_Z80, _Z90)]
    return Error(residuals.shape[1], percent, float(np.median(residuals[0])), *inside)


def lines(found: SpeedAudit) -> list[str]:
    """The audit as Markdown."""
    head = " | ".join(f"{k} measured" for k in NUM_MEASURED)
    text = ["Error: median over classifiers; in brackets, shares inside the 80 % and 90 % intervals.", ""]
    text += [f"| device left out | measured first | {head} |", "|---|---|" + "--:|" * len(NUM_MEASURED)]
    for each in found.transfers:
        mark = "" if each.has_class else " (no table of its class)"
        cells = " | ".join(map(_cell, each.errors.values()))
        text.append(f"| {each.setting}{mark} | {each.anchor} | {cells} |")
    cells = " | ".join(map(_cell, found.pooled.values()))
    text += [f"| all with a table of their class | | {cells} |", ""]
    text += ["Seen below 384 px only, asked from 512 px, on the same device:", ""]
    text += ["| device | networks seen smaller | networks not seen |", "|---|--:|--:|"]
    for name, errors in found.upsizing.items():
        cells = " | ".join("none" if each is None else f"{_cell(each)}, n = {each.num}" for each in errors)
        text.append(f"| {name} | {cells} |")
    return text


def _cell(error: Error) -> str:
    return f"{error.median_percent:.1f} % ({error.coverage_80:.2f}, {error.coverage_90:.2f})"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines(audit())) + "\n")
