"""Reference times of segmenters from timm's throughput of classifiers on eight hardware settings.

Source: https://github.com/huggingface/pytorch-image-models, `results/`, as `profiles/reference/timm_throughput.csv`.
A segmenter keeps the table's time at its size. From another size it is scaled by multiply-adds (between sizes of one
network, time is proportional to them within 2 % on the shipped GPUs). Others get the power law of the class, with the
deviation of similar networks of their family.

A device uses its own settings, otherwise those of other devices of its class (device kind, precision and compile
mode); classes are never mixed. Without a setting of the class only the power law is used, with a wider spread.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from luma_cli import files
from luma_cli.errors import BadCard
from luma_cli.speed.devices import DeviceSpec, load_devices
from luma_cli.speed.quantity import Workload
from luma_cli.speed.transfer import SHIPPED, Floats, Priors, Spread, slopes_of, stem_of
from luma_cli.store.profiles import Conditions

FACTS = ("architecture", "resolution", "family", "gmacs", "mega_activations")
# Log deviation per unit of log area between the sizes of one network: median 0.02, with tails, on the shipped GPUs; on
# a CPU (one image at a time) large ones are faster than small ones suggest.
_SIZE_SD, _CPU_SIZE_SD = 0.06, 0.2
# A head's multiply-adds are not the backbone's: log deviation per unit of log(with head / without).
_OTHER_WORK_SD = 0.5
# Share of the squared disagreement between shipped settings that stays with one network.
_DISAGREEMENT = 0.3
_MOST_CONTRAST = 0.3
# Similar networks are about this near in log multiply-adds; the prior weighs as much as this many of them.
_NEAR, _PRIOR_WEIGHT = 0.7, 1.0
_MACS_PER_PIXEL, _USUAL_MACS, _USUAL_INTENSITY = 8e4, 5e9, log(375)
# Log deviation of a network outside the table, measured by leaving each out; smaller beside a family effect.
_LAW_SD, _LAW_ONLY_SD, _NO_FAMILY = 0.25, 0.22, 1.6

# Spreads without a setting of the class: moments of the laws of the eight shipped settings about their mean.
COSTS_ONLY = replace(SHIPPED, size=0.15, intensity=0.2, side=0.3, family=0.3, stem=0.2, contrast=0.0)
# Spreads of latency about reference plus overhead (`times`), assumed wider: kernels at batch 1 are different.
LATENCY = replace(SHIPPED, size=0.1, intensity=0.1, side=0.1, family=0.1, stem=0.1, noise=0.03)
# The level of the device's own shipped setting: another machine, driver and release of torch.
_OWN_SCALE = 0.1

# Devices by specification: class of the measured GPUs, log deviation of the level (the audit finds up to 0.2 between
# GPUs of one kind; other kinds, such as modules with shared memory, are farther) and of one network.
SPECIFIED, _SPECIFIED_SCALE, _SPECIFIED_STEM, _ROOFLINE_STEPS = ("cuda half", "none"), 0.35, 0.1, 12

_WORDS = re.compile(r"[^\s()@/]+")
# Words of a device's full name that do not name another model.
_IDLE = frozenset(("nvidia", "geforce", "amd", "intel", "r", "tm", "core", "cpu", "graphics"))
_EDITIONS = frozenset(("blackwell", "workstation", "edition", "generation"))
_CLOCK = re.compile(r"[\d.]+ghz")


@dataclass(frozen=True, slots=True, order=True)
class HardwareSetting:
    """The setting of a column: device model, precision, memory layout, mode (`eager` or `dynamo`), torch."""

    device_name: str
    precision: str
    layout: str
    mode: str
    torch: str

    @property
    def label(self) -> str:
        """The column's name, e.g. `RTX 4090/amp/nchw/eager/2.4`."""
        return "/".join((self.device_name, self.precision, self.layout, self.mode, self.torch))

    @property
    def speed_class(self) -> tuple[str, str]:
        """Device kind with precision, and compile mode: numbers of different classes are never compared."""
        kind = "cpu" if self.device_name.startswith("CPU") else "cuda"
        precision = "fp32" if self.precision == "fp32" else "half"
        return f"{kind} {precision}", "none" if self.mode == "eager" else "default"


@dataclass(frozen=True, slots=True)
class Classifier:
    """One classifier (backbone and pooled linear head) at one size, with timm's counts.

    activations: outputs of convolutions and linear layers. milliseconds: per image at timm's largest batch (up to 2048;
    1 on the CPU), in the order of `ThroughputTable.settings`, None where not measured.
    """

    architecture: str
    resolution: int
    family: str
    macs: float
    activations: float
    milliseconds: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class ThroughputTable:
    """All settings with all classifiers."""

    settings: tuple[HardwareSetting, ...]
    rows: tuple[Classifier, ...]


@cache
def load_table() -> ThroughputTable:
    """The shipped table; empty where none ships. Raises BadCard for another file."""
    file = files.root() / "profiles" / "reference" / "timm_throughput.csv"
    return read_table(file) if file.is_file() else ThroughputTable((), ())


def read_table(file: Path) -> ThroughputTable:
    """The table in `file`. Raises BadCard, naming the line, for another file."""
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        header = next(reader, [])
        if tuple(header[: len(FACTS)]) != FACTS:
            raise BadCard(f"{file}: no throughput table, the header should begin with {','.join(FACTS)}")
        try:
            settings = tuple(HardwareSetting(*name.split("/")) for name in header[len(FACTS) :])
            return ThroughputTable(settings, tuple(map(_classifier, reader)))
        except (TypeError, ValueError) as error:
            raise BadCard(f"{file}: line {reader.line_num} is no row of a throughput table ({error})") from error


def _classifier(row: Sequence[str]) -> Classifier:
    name, side, family, gmacs, activations, *rates = row
    times = tuple(1e3 / float(rate) if rate else None for rate in rates)
    return Classifier(name, int(side), family, float(gmacs) * 1e9, float(activations) * 1e6, times)


@dataclass(frozen=True, slots=True)
class Reference:
    """The shipped log times of a class.

    base: (r,) log ms of r classifiers. contrasts: (r, k) differences of each setting. law: coefficients over 1, s and s
    squared of log ms per multiply-add; s is `sizes`, (r,) log multiply-adds per pixel. residuals: (r,) of the law.
    law_sd: their spread for a network outside the table. intensities: (r,) log multiply-adds per activation.
    disagreements: (r,) variance between the settings that stays with the row. by_*: indices of rows.
    """

    settings: tuple[HardwareSetting, ...]
    rows: tuple[Classifier, ...]
    base: Floats
    contrasts: Floats
    law: Floats
    residuals: Floats
    law_sd: float
    size_sd: float
    sizes: Floats
    intensities: Floats
    disagreements: Floats
    by_name: dict[str, list[int]]
    by_stem: dict[str, list[int]]
    by_family: dict[str, list[int]]

    def points(self, workloads: Sequence[Workload], environments: Sequence[str] = ()) -> Priors:
        """The table's prior for the workloads."""
        found = [self._point(each) for each in workloads]
        base, variance, contrasts, macs, activations, families = zip(*found, strict=True) if found else ((),) * 6
        return Priors(
            base=np.array(base, dtype=float),
            variance=np.array(variance, dtype=float),
            contrasts=np.array(contrasts, dtype=float).reshape(len(workloads), len(self.settings)),
            slopes=slopes_of(macs, activations, [each.resolution for each in workloads]),
            families=families,
            stems=[stem_of(each.architecture) for each in workloads],
            heads=[each.head if each.head != "none" else "" for each in workloads],
            environments=environments or [""] * len(workloads),
        )

    @property
    def middle(self) -> float:
        """Log ms of the median classifier."""
        return float(np.median(self.base))

    @property
    def on_cpu(self) -> bool:
        """Whether the settings are of CPUs."""
        return all(each.speed_class[0].startswith("cpu") for each in self.settings)

    def law_only(self) -> Reference:
        """Without any network's times, for devices whose class has none."""
        return replace(
            self,
            settings=(),
            contrasts=np.zeros((len(self.rows), 0)),
            residuals=np.zeros(len(self.rows)),
            disagreements=np.zeros(len(self.rows)),
            law_sd=_LAW_ONLY_SD,
            by_name={},
            by_stem={},
        )

    def has(self, workload: Workload) -> bool:
        """Whether the table has this network at any size."""
        return workload.architecture in self.by_name or stem_of(workload.architecture) in self.by_stem

    def has_at(self, workload: Workload) -> bool:
        """Whether the table has this classifier at this size."""
        rows = (self.rows[index] for index in self.by_name.get(workload.architecture, ()))
        return any(row.resolution == workload.resolution for row in rows)

    def family_of(self, architecture: str) -> str:
        """The family in timm's table, by network or by the start of the name; empty without one."""
        stem = stem_of(architecture)
        if stem in self.by_stem:
            return self.rows[self.by_stem[stem][0]].family
        words = architecture.split("_")
        starts = ("_".join(words[:length]) for length in range(len(words), 0, -1))
        return next((start for start in starts if start in self.by_family), "")

    def _point(self, workload: Workload) -> tuple[Any, ...]:
        indices = self.by_name.get(workload.architecture) or self.by_stem.get(stem_of(workload.architecture))
        return self._scaled(workload, indices) if indices else self._unknown(workload)

    def _scaled(self, workload: Workload, indices: Sequence[int]) -> tuple[Any, ...]:
        index = min(indices, key=lambda each: (abs(log(self.rows[each].resolution / workload.resolution)), each))
        row = self.rows[index]
        area = 2 * log(workload.resolution / row.resolution)
        macs = float(workload.macs or row.macs * (workload.resolution / row.resolution) ** 2)
        work = log(macs / row.macs)
        variance = self.size_sd**2 * abs(area) + float(self.disagreements[index])
        if workload.head != "none" or workload.macs is None:
            variance += (_OTHER_WORK_SD * min(abs(work - area), 1.0)) ** 2 + (0.0 if workload.macs else 0.2**2)
        activations = row.activations * (workload.resolution / row.resolution) ** 2
        return self.base[index] + work, variance, self.contrasts[index], macs, activations, row.family

    def _unknown(self, workload: Workload) -> tuple[Any, ...]:
        """By the law and the deviation of the family's networks of similar multiply-adds per pixel."""
        macs = float(workload.macs or _USUAL_MACS * (workload.resolution / 224) ** 2)
        size = log(macs / workload.resolution**2 / _MACS_PER_PIXEL)
        family = self.family_of(workload.architecture)
        near = self.by_family.get(family) or []
        weights = np.exp(-(((self.sizes[near] - size) / _NEAR) ** 2) / 2)
        total = float(weights.sum()) + _PRIOR_WEIGHT
        residual = float(weights @ self.residuals[near]) / total
        intensity = (float(weights @ self.intensities[near]) + _PRIOR_WEIGHT * _USUAL_INTENSITY) / total
        sd = self.law_sd * (1 if near else _NO_FAMILY) + (0.0 if workload.macs else 1.0)
        constant, linear, square = self.law.tolist()
        base = log(macs) + constant + linear * size + square * size**2 + residual
        return base, sd**2, [0.0] * len(self.settings), macs, macs / exp(intensity), family


def reference_of(
    table: ThroughputTable, settings: Sequence[HardwareSetting], own: bool, max_side: int | None = None
) -> Reference:
    """The reference from these settings of one class, each device with equal weight; rows above `max_side` left out.

    own: whether the settings are the device's own.
    """
    columns = [table.settings.index(each) for each in settings]
    most = max_side or max((row.resolution for row in table.rows), default=0)
    rows = tuple(row for row in table.rows if row.resolution <= most and any(row.milliseconds[i] for i in columns))
    times = [[row.milliseconds[i] or np.nan for i in columns] for row in rows]
    shape, level, contrasts = _averaged(np.log(np.array(times, dtype=float)), settings)
    macs = np.array([row.macs for row in rows])
    size = np.log(macs / np.array([row.resolution for row in rows]) ** 2 / _MACS_PER_PIXEL)
    terms = np.stack([np.ones_like(size), size, size**2], axis=1)
    base = shape + (level if own else 0.0)
    law = np.linalg.lstsq(terms, base - np.log(macs), rcond=None)[0]
    return Reference(
        settings=tuple(settings),
        rows=rows,
        base=base,
        contrasts=contrasts,
        law=law,
        residuals=base - np.log(macs) - terms @ law,
        law_sd=_LAW_SD,
        size_sd=_SIZE_SD if any(each.speed_class[0].startswith("cuda") for each in settings) else _CPU_SIZE_SD,
        sizes=size,
        intensities=np.log(macs / np.array([row.activations for row in rows])),
        disagreements=_DISAGREEMENT * (contrasts**2).mean(axis=1),
        by_name=_indices(row.architecture for row in rows),
        by_stem=_indices(stem_of(row.architecture) for row in rows),
        by_family=_indices(row.family for row in rows),
    )


def _averaged(logs: Floats, settings: Sequence[HardwareSetting]) -> tuple[Floats, float, Floats]:
    """Of (r, k) log times: (r,) mean over devices about their levels, the mean level, (r, k) differences.

    A setting's level is its median over the rows that all settings have. Missing times are left out.
    """
    level = np.median(logs[~np.isnan(logs).any(axis=1)], axis=0)
    about = logs - level
    names = sorted({each.device_name for each in settings})
    devices = [[i for i, each in enumerate(settings) if each.device_name == name] for name in names]
    shape = _mean(np.stack([_mean(about[:, columns]) for columns in devices], axis=1))
    differences = np.clip(about - shape[:, None], -_MOST_CONTRAST, _MOST_CONTRAST)
    return shape, float(level.mean()), np.nan_to_num(differences)


def _mean(values: Floats) -> Floats:
    """Row means without NaN; NaN for an empty row."""
    there = ~np.isnan(values)
    count = there.sum(axis=1)
    mean: Floats = np.where(count > 0, np.where(there, values, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)
    return mean


def _indices(names: Iterable[str]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for number, name in enumerate(names):
        found[name].append(number)
    return dict(found)


@dataclass(frozen=True, slots=True)
class Lineup:
    """A reference with its spread. why: its source in words. specified: whether only the device's figures are known."""

    reference: Reference
    spread: Spread
    own: bool
    why: str
    specified: bool = False


def class_of(conditions: Conditions) -> tuple[str, str]:
    """Device kind with precision, and compile mode, as `HardwareSetting.speed_class` has them."""
    precision = "fp32" if conditions.dtype == "float32" else "half"
    return f"{conditions.device} {precision}", conditions.compile


def shipped_name(device: str, table: ThroughputTable | None = None) -> str:
    """The shipped device model of this name (`4090`, `NVIDIA GeForce RTX 4090`); empty for none or several.

    Variants such as `RTX 4090 Laptop GPU` are other models.
    """
    found = {setting.device_name for setting in (table or load_table()).settings}
    wanted = _words(device)
    matching = [name for name in found if wanted and (wanted <= _words(name) or _words(name) == wanted)]
    return matching[0] if len(matching) == 1 else ""


def _words(name: str) -> frozenset[str]:
    words = _WORDS.findall(name.lower())
    return frozenset(word for word in words if word not in _IDLE | _EDITIONS and not _CLOCK.fullmatch(word))


@cache
def lineup(speed_class: tuple[str, str], device: str) -> Lineup:
    """The shipped reference for a device of this class. device: a `shipped_name`, or empty."""
    return lineup_in(load_table(), speed_class, device)


def lineup_in(table: ThroughputTable, speed_class: tuple[str, str], device: str = "", without: str = "") -> Lineup:
    """`lineup` in any table. without: a device to leave out, for audits."""
    settings = [each for each in table.settings if each.device_name != without]
    of_class = [each for each in settings if each.speed_class == speed_class]
    own = [each for each in of_class if device and each.device_name == device]
    if own:
        spread = replace(SHIPPED, scale=_OWN_SCALE)
        return Lineup(reference_of(table, own, own=True), spread, True, f"timm's throughput of {device}")
    if of_class:
        why = f"timm's throughput of {', '.join(sorted({each.device_name for each in of_class}))}"
        return Lineup(reference_of(table, of_class, own=False), SHIPPED, False, why)
    kind = speed_class[0].split()[0]
    others = [each for each in settings if each.speed_class[0].split()[0] == kind] or settings
    law = reference_of(table, others, own=False).law_only()
    why = f"multiply-adds alone, as no throughput ships for {' with compile '.join(speed_class)}"
    return Lineup(law, COSTS_ONLY, False, why)


@cache
def by_specification(spec: DeviceSpec) -> Lineup | None:
    """The lineup of a device of which only figures are known, from the GPUs of timm's table in half precision.

    None where the table has no such GPU.
    """
    return specified_in(load_table(), spec)


def specified_in(table: ThroughputTable, spec: DeviceSpec, without: str = "") -> Lineup | None:
    """`by_specification` in any table. without: a device to leave out, for audits.

    Each network's time on a measured GPU is scaled by the ratio of a roofline's sums (Williams et al. 2009,
    https://doi.org/10.1145/1498765.1498785; here time for arithmetic plus time for memory):

        ms = 2 multiply-adds / (e_c x peak) + 2 bytes x activations / (e_b x bandwidth)

    e_c and e_b are fitted to the measured GPUs; the mean over GPUs, each with equal weight, is the device's own column.
    """
    known = {each.name: each for each in load_devices()}
    settings = [
        each
        for each in table.settings
        if each.speed_class == SPECIFIED
        and each.layout == "nchw"
        and each.device_name in known
        and each.device_name != without
    ]
    if not settings:
        return None
    columns = [table.settings.index(each) for each in settings]
    rows = [row for row in table.rows if any(row.milliseconds[index] for index in columns)]
    logs = np.log(np.array([[row.milliseconds[index] or np.nan for index in columns] for row in rows], dtype=float))
    macs, activations = np.array([(row.macs, row.activations) for row in rows], dtype=float).T
    specs = [known[each.device_name] for each in settings]
    shares = _roofline(logs, macs, activations, specs)
    scaled = logs + (_roof(macs, activations, [spec], shares) - _roof(macs, activations, specs, shares))
    names = sorted({each.device_name for each in settings})
    alike = [[i for i, each in enumerate(settings) if each.device_name == name] for name in names]
    times = np.exp(_mean(np.stack([_mean(scaled[:, each]) for each in alike], axis=1)))
    own = HardwareSetting(spec.name, "amp", "nchw", "eager", "by specification")
    filled = (replace(row, milliseconds=(float(ms),)) for row, ms in zip(rows, times, strict=True))
    reference = reference_of(ThroughputTable((own,), tuple(filled)), [own], own=True)
    why = f"its specification ({spec.figures}) and timm's throughput of {', '.join(names)}"
    return Lineup(reference, replace(SHIPPED, scale=_SPECIFIED_SCALE, stem=_SPECIFIED_STEM), True, why, True)


def _roof(macs: Floats, activations: Floats, specs: Sequence[DeviceSpec], shares: Floats) -> Floats:
    """(r, k) log milliseconds of the roofline. shares: logs of e_c and e_b."""
    peak, bandwidth = np.array([(each.fp16, each.bandwidth) for each in specs]).T
    compute = np.log(2e3 * macs)[:, None] - np.log(peak) - shares[0]
    memory = np.log(2e3 * activations)[:, None] - np.log(bandwidth) - shares[1]
    return np.asarray(np.logaddexp(compute, memory))


def _roofline(logs: Floats, macs: Floats, activations: Floats, specs: Sequence[DeviceSpec]) -> Floats:
    """(2,): logs of the shares of peak and bandwidth that are reached, by Gauss-Newton on log time."""
    there, shares = ~np.isnan(logs), np.log([0.7, 0.1])
    for _ in range(_ROOFLINE_STEPS):
        roof = _roof(macs, activations, specs, shares)
        part = np.exp(_roof(macs, activations, specs, np.array([shares[0], np.inf])) - roof)
        slopes = np.stack([-part[there], part[there] - 1], axis=1)
        step = np.linalg.lstsq(slopes, (logs - roof)[there], rcond=None)[0]
        shares = np.minimum(shares + np.clip(step, -1, 1), 0.0)  # no device exceeds its figures
    return shares
