"""Reference times: what the shipped table of one class says of any segmenter, on a device of no particular speed.

A segmenter that the table has at its size keeps the table's time. One that it has at another size is scaled by
multiply-adds (between the sizes of one network, time is proportional to them within 2 % on the shipped GPUs). Others
get the power law of the class and what similar networks of their family deviate from it.

The table is timm's throughput of classifiers on eight hardware settings, `profiles/reference/timm_throughput.csv`:

    python -m luma_cli.speed.reference RAW.csv profiles/reference/timm_throughput.csv

makes it of a transcription of timm's own result files, which have one row per checkpoint and setting; what ships has
one row per architecture and size, one column per setting. Source:
https://github.com/huggingface/pytorch-image-models, `results/`.

Which settings speak for a device: its own, else those of other devices of the same class (device kind, precision and
compile mode), which are never mixed. Without any of the class only the power law of the costs carries over, and its
wider spread says so.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from luma_cli import files
from luma_cli.errors import BadCard
from luma_cli.speed.quantity import Workload
from luma_cli.speed.transfer import SHIPPED, Floats, Points, Spread, slopes_of, stem_of
from luma_cli.store.profiles import Conditions

_FACTS = ("architecture", "resolution", "family", "gmacs", "mega_activations")
_USAGE = "usage: python -m luma_cli.speed.reference RAW.csv OUT.csv"
# Log deviation per unit of log area between the sizes of one network: median 0.02, with tails, on the shipped GPUs; on
# a CPU, which works on one image at a time, large ones are faster than small ones suggest.
_SIZE_SD, _CPU_SIZE_SD = 0.06, 0.2
# A head's multiply-adds are not the backbone's: log deviation per unit of log(with head / without).
_OTHER_WORK_SD = 0.5
# Share of the squared disagreement between shipped settings that stays with one network.
_DISAGREEMENT = 0.3
_MOST_CONTRAST = 0.3
# Similar: within about this much in log multiply-adds; a family counts as much as this many such networks.
_NEAR, _PRIOR_WEIGHT = 0.7, 1.0
_MACS_PER_PIXEL, _USUAL_MACS, _USUAL_INTENSITY = 8e4, 5e9, log(375)
# Log deviation of a network that the table does not have, measured by leaving each out; beside a family effect: less.
_LAW_SD, _LAW_ONLY_SD, _NO_FAMILY = 0.25, 0.22, 1.6

# Spreads where no setting of the class ships: moments of the laws of the eight shipped settings about their mean.
COSTS_ONLY = replace(SHIPPED, size=0.15, intensity=0.2, side=0.3, family=0.3, stem=0.2, contrast=0.0)
# Latency at batch 1 about a reference with an overhead (`latency`), assumed: kernels at batch 1 are other ones.
LATENCY = replace(SHIPPED, size=0.1, intensity=0.1, side=0.1, family=0.1, stem=0.1, noise=0.03)
# The level of the device's own shipped setting: another machine, driver and release of torch.
_OWN_SCALE = 0.1

_WORDS = re.compile(r"[^\s()@/]+")
# Words of a device's full name that do not make it another model.
_IDLE = frozenset(("nvidia", "geforce", "amd", "intel", "r", "tm", "core", "cpu", "graphics"))
_EDITIONS = frozenset(("blackwell", "workstation", "edition", "generation"))
_CLOCK = re.compile(r"[\d.]+ghz")


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """What a column was measured on: device model, precision, memory layout, mode (`eager` or `dynamo`), torch."""

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
    """One classifier at one size: backbone and pooled linear head, as timm counts it.

    macs: multiply-adds; activations: outputs of convolutions and linear layers. milliseconds: per image at the largest
    batch that timm tried (up to 2048; 1 on the CPU), in the order of `Table.settings`, None where not measured.
    """

    architecture: str
    resolution: int
    family: str
    macs: float
    activations: float
    milliseconds: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """All settings with all classifiers."""

    settings: tuple[Setting, ...]
    rows: tuple[Classifier, ...]


def table_path() -> Path:
    """The table that ships with luma."""
    return files.root() / "profiles" / "reference" / "timm_throughput.csv"


@cache
def load_table() -> Table:
    """The shipped table; without rows where none ships. Raises BadCard for a file that is no such table."""
    return read_table(table_path()) if table_path().is_file() else Table((), ())


def read_table(file: Path) -> Table:
    """The table in `file`. Raises BadCard, naming the line, when it is not one."""
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        header = next(reader, [])
        if tuple(header[: len(_FACTS)]) != _FACTS:
            raise BadCard(f"{file}: no throughput table, the header should begin with {','.join(_FACTS)}")
        try:
            settings = tuple(Setting(*name.split("/")) for name in header[len(_FACTS) :])
            return Table(settings, tuple(map(_classifier, reader)))
        except (TypeError, ValueError) as error:
            raise BadCard(f"{file}: line {reader.line_num} is no row of a throughput table ({error})") from error


def _classifier(row: Sequence[str]) -> Classifier:
    name, side, family, gmacs, activations, *rates = row
    times = tuple(1e3 / float(rate) if rate else None for rate in rates)
    return Classifier(name, int(side), family, float(gmacs) * 1e9, float(activations) * 1e6, times)


@dataclass(frozen=True, slots=True)
class Reference:
    """The shipped times of a class, as logs.

    rows: r classifiers. base: (r,) log ms. contrasts: (r, k) by how much each differs. law: coefficients over 1, s and
    s squared of log ms per multiply-add; s is `sizes`, (r,) log multiply-adds per pixel. residuals: (r,) of the law.
    law_sd: their spread for a network that the table does not have. size_sd: see `_SIZE_SD`. intensities: (r,) log
    multiply-adds per activation. disagreements: (r,) variance between the settings that stays with the row. by_name,
    by_stem, by_family: indices of rows.
    """

    settings: tuple[Setting, ...]
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

    def points(self, workloads: Sequence[Workload], environments: Sequence[str] = ()) -> Points:
        """What the table says of the workloads."""
        found = [self._point(each) for each in workloads]
        base, variance, contrasts, macs, activations, families = zip(*found, strict=True) if found else ((),) * 6
        return Points(
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
        """Without the times of any network: for devices whose class has none."""
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
        """Whether the table has this network, at whatever size."""
        return workload.architecture in self.by_name or stem_of(workload.architecture) in self.by_stem

    def has_at(self, workload: Workload) -> bool:
        """Whether it has this very classifier at this size."""
        rows = (self.rows[index] for index in self.by_name.get(workload.architecture, ()))
        return any(row.resolution == workload.resolution for row in rows)

    def family_of(self, architecture: str) -> str:
        """The family in timm's table, by its networks of that name or by how the name begins; empty if none."""
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
        """By the law, and by what networks of the family with about as many multiply-adds per pixel deviate from it."""
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


def reference_of(table: Table, settings: Sequence[Setting], own: bool, max_side: int | None = None) -> Reference:
    """The reference from these settings of one class, each device with the same weight.

    own: whether the settings are the device's own. max_side: rows above it are left out.
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


def _averaged(logs: Floats, settings: Sequence[Setting]) -> tuple[Floats, float, Floats]:
    """Of (r, k) log times: (r,) mean over devices about their levels, the mean level, (r, k) what each differs by.

    A setting's level is its median over the rows that all settings have. A missing time counts for nothing.
    """
    level = np.median(logs[~np.isnan(logs).any(axis=1)], axis=0)
    about = logs - level
    names = sorted({each.device_name for each in settings})
    devices = [[i for i, each in enumerate(settings) if each.device_name == name] for name in names]
    shape = _mean(np.stack([_mean(about[:, columns]) for columns in devices], axis=1))
    differences = np.clip(about - shape[:, None], -_MOST_CONTRAST, _MOST_CONTRAST)
    return shape, float(level.mean()), np.nan_to_num(differences)


def _mean(values: Floats) -> Floats:
    """Row means of what is there; NaN for a row without anything."""
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
    """The reference with the spread that goes with it. why: what it stands on, for readers."""

    reference: Reference
    spread: Spread
    own: bool
    why: str


def class_of(conditions: Conditions) -> tuple[str, str]:
    """Device kind with precision, and compile mode, as `Setting.speed_class` has them."""
    precision = "fp32" if conditions.dtype == "float32" else "half"
    return f"{conditions.device} {precision}", conditions.compile


def shipped_name(device: str, table: Table | None = None) -> str:
    """The shipped device model that the text names (`4090`, `NVIDIA GeForce RTX 4090`); empty for none or several.

    Variants are other models: `RTX 4090 Laptop GPU` and `RTX 4090 D` name none.
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
    """What ships for a device of this class. device: a name of `shipped_name`, or empty."""
    return lineup_in(load_table(), speed_class, device)


def lineup_in(table: Table, speed_class: tuple[str, str], device: str = "", without: str = "") -> Lineup:
    """The same in any table. without: a device whose settings are left out, for audits."""
    settings = [each for each in table.settings if each.device_name != without]
    of_class = [each for each in settings if each.speed_class == speed_class]
    own = [each for each in of_class if device and each.device_name == device]
    if own:
        spread = replace(SHIPPED, scale=_OWN_SCALE)
        return Lineup(reference_of(table, own, own=True), spread, True, f"timm's throughput of {device}")
    if of_class:
        names = sorted({each.device_name for each in of_class})
        return Lineup(
            reference_of(table, of_class, own=False), SHIPPED, False, f"timm's throughput of {', '.join(names)}"
        )
    kind = speed_class[0].split()[0]
    others = [each for each in settings if each.speed_class[0].split()[0] == kind] or settings
    law = reference_of(table, others, own=False).law_only()
    why = f"multiply-adds alone, as no throughput ships for {' with compile '.join(speed_class)}"
    return Lineup(law, COSTS_ONLY, False, why)


def compact(raw: Sequence[Mapping[str, str]]) -> list[list[str]]:
    """Header and rows of the shipped file: checkpoints of one architecture at one size share one measurement.

    Raises BadCard where they do not, or where a number is not positive.
    """
    rates: dict[tuple[str, int], dict[Setting, float]] = {}
    facts: dict[tuple[str, int], tuple[str, str, str]] = {}
    for number, row in enumerate(raw, 2):
        key = row["model"].split(".")[0], int(row["img_size"])
        mode, torch = row["mode"].split(" pt")
        setting = Setting(row["hardware"], row["precision"], row["layout"], mode, torch)
        rate = float(row["infer_samples_per_sec"])
        if rate <= 0 or rates.setdefault(key, {}).setdefault(setting, rate) != rate:
            raise BadCard(f"line {number}: {rate} images/s for {row['model']}, expected one positive rate per size")
        facts.setdefault(key, (row["family"], row["infer_gmacs"], row["infer_macts"]))
    settings = sorted({setting for found in rates.values() for setting in found})
    table = [[*_FACTS, *(setting.label for setting in settings)]]
    for (name, side), found in sorted(rates.items(), key=lambda each: each[0]):
        shown = [f"{found[each]:g}" if each in found else "" for each in settings]
        table.append([name, str(side), *facts[name, side], *shown])
    return table


def main(arguments: Sequence[str]) -> int:
    """Makes the shipped file of the transcription; says to stderr what was read."""
    if len(arguments) != 2:
        print(_USAGE, file=sys.stderr)
        return 2
    raw = files.read_csv(Path(arguments[0]))
    table = compact(raw)
    with Path(arguments[1]).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    settings = len(table[0]) - len(_FACTS)
    print(f"{len(raw)} rows read, {len(table) - 1} architectures and sizes on {settings} settings", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
