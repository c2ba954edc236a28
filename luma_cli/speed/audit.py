"""Audit of the model of speed (`luma recommend --audit`): every shipped device predicted from the others.

For each hardware setting its device is left out, `k` classifiers that luma chooses are measured, and all others are
predicted. A second part goes from small images to large ones: fitted below 384 px, predicted from 512 px. A third
predicts each GPU from its specification alone, without its measurements: classifiers at large batches, and published
latencies of segmenters.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from luma_cli.speed.devices import find_device
from luma_cli.speed.latency import load_published
from luma_cli.speed.model import SpeedModel
from luma_cli.speed.quantity import Z80, Workload
from luma_cli.speed.reference import (
    SPECIFIED,
    Classifier,
    HardwareSetting,
    ThroughputTable,
    lineup_in,
    load_table,
    reference_of,
    specified_in,
)
from luma_cli.speed.times import to_measure
from luma_cli.speed.transfer import Floats, posterior, prior_variance

NUM_MEASURED = (1, 5, 20)
_Z90 = 1.6448536269514722
_SMALL, _LARGE = 383, 512


@dataclass(frozen=True, slots=True)
class Error:
    """Median relative error in percent, bias of log time, shares inside the 80 and 90 % intervals."""

    num: int
    median_percent: float
    bias: float
    coverage_80: float
    coverage_90: float


@dataclass(frozen=True, slots=True)
class Transfer:
    """One setting predicted from other devices. anchor: the classifier measured first. errors: by number measured.

    has_class: whether another device has a setting of its class.
    """

    setting: str
    anchor: str
    has_class: bool
    errors: dict[int, Error]


@dataclass(frozen=True, slots=True)
class SpeedAudit:
    """pooled: over all settings with a class, by number of measurements. upsizing: by setting, errors from 512 px when
    trained below 384 px, for networks with smaller sizes in the table and for others. specified: by setting, throughput
    predicted from the device's figures alone; published: by device and runtime, latencies of others likewise.
    """

    transfers: tuple[Transfer, ...]
    pooled: dict[int, Error]
    upsizing: dict[str, tuple[Error | None, Error | None]]
    specified: dict[str, Error]
    published: dict[str, Error]


def audit(table: ThroughputTable | None = None) -> SpeedAudit:
    """The audit of a table, by default the shipped one."""
    found = load_table() if table is None else table
    done = [_transfer(found, setting) for setting in found.settings]
    with_class = [residuals for transfer, residuals in done if transfer.has_class]
    pooled = {k: _error(np.concatenate([residuals[k] for residuals in with_class], axis=1)) for k in NUM_MEASURED}
    upsizing = {setting.label: _upsizing(found, setting) for setting in found.settings}
    specified = {
        setting.label: error for setting in found.settings if (error := _specified(found, setting)) is not None
    }
    return SpeedAudit(tuple(transfer for transfer, _ in done), pooled, upsizing, specified, _published())


def _transfer(table: ThroughputTable, setting: HardwareSetting) -> tuple[Transfer, dict[int, Floats]]:
    """The setting's transfer; residuals and standard deviations (2, n) by number of measurements."""
    others = lineup_in(table, setting.speed_class, without=setting.device_name)
    rows, log_ms = _rows(table, setting)
    points = others.reference.points(list(map(workload_of, rows)))
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


def _upsizing(table: ThroughputTable, setting: HardwareSetting) -> tuple[Error | None, Error | None]:
    """Errors at large sizes on a device with known small ones: of networks in the table, and of others."""
    reference = reference_of(table, [setting], own=True, max_side=_SMALL)
    rows, log_ms = _rows(table, setting)
    large = [index for index, row in enumerate(rows) if row.resolution >= _LARGE]
    points = reference.points([workload_of(rows[index]) for index in large])
    residuals = np.stack([log_ms[large] - points.base, np.sqrt(points.variance + 0.02**2)])
    known = np.array([reference.has(workload_of(rows[index])) for index in large], dtype=bool)
    one, other = (_error(each) if each.shape[1] else None for each in (residuals[:, known], residuals[:, ~known]))
    return one, other


def _specified(table: ThroughputTable, setting: HardwareSetting) -> Error | None:
    """Errors on a GPU of which only the figures are given; None for a setting of another class."""
    spec = find_device(setting.device_name)
    if spec is None or setting.speed_class != SPECIFIED:
        return None
    found = specified_in(table, spec, without=setting.device_name)
    if found is None:
        return None
    rows, log_ms = _rows(table, setting)
    points = found.reference.points(list(map(workload_of, rows)))
    return _error(np.stack([log_ms - points.base, np.sqrt(prior_variance(points, found.spread))]))


def _published() -> dict[str, Error]:
    """Errors on published latencies in half precision, batch 1, without the rows of the device."""
    residuals: dict[str, list[tuple[float, float]]] = {}
    for row in load_published():
        spec = find_device(row.device)
        if spec is None or not row.macs or row.dtype == "float32" or row.batch != 1:
            continue
        others = [each for each in load_published() if each.device != row.device]
        speed = SpeedModel.load([], f"{spec.name}/{row.runtime}", head=row.head, published=others)
        said = speed.quantity("ms", row.workload)
        if said is not None:
            pair = log(row.ms / said.value), log(said.high / said.low) / (2 * Z80)
            residuals.setdefault(f"{spec.name}, {row.runtime}", []).append(pair)
    return {name: _error(np.array(pairs).T) for name, pairs in residuals.items()}


def _rows(table: ThroughputTable, setting: HardwareSetting) -> tuple[list[Classifier], Floats]:
    column = table.settings.index(setting)
    rows = [row for row in table.rows if row.milliseconds[column] is not None]
    return rows, np.log(np.array([row.milliseconds[column] for row in rows], dtype=float))


def workload_of(row: Classifier) -> Workload:
    """The classifier as a workload without a head."""
    return Workload(row.architecture, row.resolution, row.family, int(row.macs), head="none")


def _error(residuals: Floats) -> Error:
    z = np.abs(residuals[0] / residuals[1])
    percent = 100 * float(np.expm1(np.median(np.abs(residuals[0]))))
    inside = [float((z <= bound).mean()) for bound in (Z80, _Z90)]
    return Error(residuals.shape[1], percent, float(np.median(residuals[0])), *inside)
