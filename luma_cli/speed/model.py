"""Costs of segmenters on one device: measured values where there are any, predictions with intervals elsewhere.

    model = SpeedModel.load(measured_rows(), "RTX 4090")
    model.quantity("ms", Workload("vit_base_patch16_dinov3", 512, macs=123_000_000_000))

Measured rows of exactly the same conditions answer directly. The rest is learned from them and from timm's throughput
of classifiers (`transfer`). A prediction whose interval spans more than a factor of ten is given as not known.

Memory at batch 1 is the sum of weights, a share of the activations, and the device's own use, in closed form:

    bytes = weights + share x activations + base + noise,   share, base ~ Normal

Energy is predicted time times measured power. GPU-hours of a training come from the user's own runs on the device,
otherwise from forward time and the ratio of a step to it, measured for LUMA and EoMT
(docs/understand/heads_speed.md: 3.2 to 3.7 and 4.6 to 6.1, float32 on a CPU).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from math import exp, log, sqrt
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from luma_cli.catalogue.costs import load_costs
from luma_cli.catalogue.recipes import load_recipe
from luma_cli.speed import times
from luma_cli.speed.bench import Bench, bench_of, quantity_of
from luma_cli.speed.devices import DeviceSpec, find_device, is_address, unknown
from luma_cli.speed.latency import RUNTIMES, Published, Runtime, latencies, load_published, usual_runtime
from luma_cli.speed.quantity import Z80, Key, Origin, Quantity, Workload, segmenter_of
from luma_cli.speed.reference import (
    SPECIFIED,
    Classifier,
    Lineup,
    by_specification,
    class_of,
    lineup,
    load_table,
    shipped_name,
)
from luma_cli.speed.times import LARGE_SIDE, MeasuredTimes, TimeKind, milliseconds
from luma_cli.speed.transfer import SHIPPED, Floats, posterior, stem_of
from luma_cli.store.profiles import Measured
from luma_cli.units import BudgetKind, counted

if TYPE_CHECKING:
    from luma_cli.store.records import RunRecord


# Predictions with a larger ratio of their 80 % interval's ends decide nothing.
WIDEST = 10.0
# Assumed use of a shipped device that was never measured here, in order of preference.
_SHIPPED_CLASSES = (("cuda half", "none"), ("cuda half", "default"), ("cpu fp32", "default"))
# In commands that measure an unknown device: small, and every head fits it.
_EXAMPLE = "vit_s.dinov3"
# How captions name a runtime.
_RUNTIME_TITLES = {"eager": "eager", "compile": "torch.compile", "tensorrt": "TensorRT"}
_RELATED_ONLY = "measured here only with another head, driver, torch or power limit"
_RATES: tuple[BudgetKind, ...] = ("images_per_second", "ms")
_COUNTS = ("macs", "params")
# Log deviation of power between models on one device: large ones fill it, small ones do not.
_POWER_SD = 0.2

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Prior: a process takes 0.2 to 0.9 GiB (CUDA context or interpreter), and 1% to all of the activations are alive at
# once, depending on allocator and kernels.
_BASE_BYTES, _BASE_SD = 0.6 * 2**30, 0.3 * 2**30
_SHARE, _SHARE_SD = 0.4, 0.3
_MEMORY_NOISE, _LEAST_NOISE_BYTES = 0.06, 32 * 2**20
_QUERIES, _MASK_STRIDE, _USUAL_WIDTH = 100, 4, 768
_MOST_ROWS = 500
# Of more candidates an even sample is used: choosing what to measure is cubic in their number.
_MOST_CANDIDATES = 600

_RATIOS: Mapping[str, float] = {"luma": 3.4, "eomt": 5.3, "linear": 3.2, "none": 3.0}
_RATIO_SD = 0.35
# Validations, data loading and micro-batches differ between runs of one model.
_RUN_NOISE, _RUN_MODEL_SD = 0.1, 0.2
_LEAST_STEPS = 20
_MS_PER_HOUR = 3.6e6
# Dataset by number of classes: recipe of that name, and images of its training split.
_USUAL: Mapping[int, tuple[str, int]] = {150: ("ade20k", 20_210), 19: ("cityscapes", 2_975)}


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """The speed of a training. ms_per_image: wall time x processes per training image, validations included."""

    workload: Workload
    device_name: str
    dtype: str
    ms_per_image: float
    started_at: str = ""
    device: str = "cuda"


@dataclass(frozen=True, slots=True)
class SpeedModel:
    """Time, memory and energy of segmenters on one device under one set of conditions.

    device_name: as in the store, else timm's name, else as asked. shipped: timm's name where its throughput ships.
    speed_class: device kind with precision, and compile mode. runs: the user's trainings on any device. spec: the
    device's figures, where they are known. runtime: of latencies that are predicted without one measured here.
    published: latencies of others, shipped and imported.
    """

    bench: Bench
    device_name: str
    shipped: str
    speed_class: tuple[str, str] | None
    runs: tuple[TrainedRun, ...] = ()
    spec: DeviceSpec | None = None
    runtime: Runtime = "compile"
    published: tuple[Published, ...] = ()

    @staticmethod
    def load(
        measured: Sequence[Measured],
        device: str | None = None,
        *,
        head: str = "luma",
        environment: str | None = None,
        runs: Sequence[TrainedRun] = (),
        spec: DeviceSpec | None = None,
        published: Sequence[Published] | None = None,
    ) -> SpeedModel:
        """The model of `device`, by the store's, timm's or the user's name; of the only measured one when None.

        A name may end in a runtime, e.g. `H100/eager`. environment: identity of the present machine as JSON, the latest
        measured one when None. runs: the user's trainings (`trained_runs`), for GPU-hours. spec: the figures of a
        device of the user's own. published: latencies of others, the shipped ones when None. Raises UsageError when
        several devices could be meant, UnknownName for a device that nobody knows.
        """
        device, asked_runtime = _without_runtime(device)
        rows = load_published() if published is None else tuple(published)
        bench = Bench(spec.name) if spec else bench_of(measured, device, head=head, environment=environment)
        name = shipped_name(bench.device_name) if bench.device_name and not spec else ""
        found = spec or (find_device(bench.device_name) if bench.device_name else None) or find_device(name)
        runtime = asked_runtime or usual_runtime(found, rows)
        model = partial(SpeedModel, runs=tuple(runs), spec=found, runtime=runtime, published=rows)
        if bench.conditions is not None:
            return model(bench, bench.device_name, name, class_of(bench.conditions))
        is_it = found is None or shipped_name(found.name) == name or find_device(name) == found
        classes = [each for each in _SHIPPED_CLASSES if name and is_it and lineup(each, name).own]
        if classes:
            return model(bench, name, name, classes[0])
        if found is not None and by_specification(found) is not None:
            return model(bench, found.name, "", SPECIFIED)
        there = [run for run in runs if device is None or device.lower() in run.device_name.lower()]
        if device is not None and not there and not is_address(device):
            raise unknown(device, tuple(sorted({row.conditions.device_name for row in measured})))
        if len({run.device_name for run in there}) != 1:
            return SpeedModel(bench, bench.device_name, "", None, tuple(runs))
        latest = max(there, key=lambda run: run.started_at)
        speed_class = f"{latest.device} {'fp32' if latest.dtype == 'float32' else 'half'}", "none"
        return SpeedModel(bench, latest.device_name or bench.device_name, "", speed_class, tuple(runs))

    @property
    def lineup(self) -> Lineup | None:
        """The shipped reference of the device's class, None without a device."""
        if self.speed_class is None:
            return None
        if self.is_specified and self.spec is not None:
            return by_specification(self.spec)
        return lineup(self.speed_class, self.shipped)

    @property
    def is_specified(self) -> bool:
        """Whether nothing but the device's figures is known."""
        return self.spec is not None and self.bench.conditions is None and not self.shipped

    @property
    def basis(self) -> str:
        """One line for captions: the device, the number of measured rows, and the source of predictions."""
        found = self.lineup
        if found is None or self.speed_class is None:
            return self.why("ms")
        num = len(self.bench.rows)
        sources = f"these and {found.why}" if num + len(self.bench.related) else found.why
        usual = f"{self.device_name}, {self.speed_class[0]}, compile {self.speed_class[1]}"
        label = self.bench.conditions.label if self.bench.conditions else usual
        if self.is_specified:
            label = f"{self.device_name}, by specification"
        latency = "" if self.bench.conditions or found.reference.on_cpu else f"; latency with {self._runtime_title}"
        return f"{label}: {num or 'nothing was'} measured{'' if num else ' here'}; predictions from {sources}{latency}"

    @property
    def _runtime_title(self) -> str:
        seen = latencies(self.spec, self.runtime, self.published).num_rows
        rows = f" ({counted(seen, 'published row')} of this device)" if seen else ""
        return f"{_RUNTIME_TITLES[self.runtime]}{rows}"

    def quantity(self, kind: BudgetKind, workload: Workload) -> Quantity | None:
        """The cost of one segmenter; None where it is not known, and `why(kind)` gives the reason."""
        return self.quantities(kind, [workload])[0]

    def quantities(self, kind: BudgetKind, workloads: Sequence[Workload]) -> list[Quantity | None]:
        """The costs in order: counts, measured values, otherwise predictions; None for unknown and too wide ones."""
        if kind in _COUNTS:
            counts = [each.macs if kind == "macs" else each.params for each in workloads]
            return [each if each is None else Quantity(kind, each, each, each, "exact") for each in counts]
        measured = self._measured(kind)
        rest = [each for each in workloads if each.key not in measured]
        predicted = iter(self._predicted(kind, rest) if rest else [])
        found = [measured[each.key] if each.key in measured else next(predicted) for each in workloads]
        return [
            each if each and (each.origin == "measured" or each.high <= WIDEST * each.low) else None for each in found
        ]

    def why(self, kind: BudgetKind) -> str:
        """Why a kind has no predictions; empty when it has some."""
        here = self.device_name or "any device"
        if kind in (*_COUNTS, "bytes"):
            return ""
        if self.speed_class is None:
            return f"nothing was measured on {here}, and no throughput of it ships; try: luma profile {_EXAMPLE}"
        if kind == "joules":
            return "" if _power_of(self.bench) else f"no energy was measured on {here}; try: luma profile {_EXAMPLE}"
        if kind == "gpu_hours":
            if any(run.device_name == self.device_name for run in self.runs) or not all(map(self.why, _RATES)):
                return ""
            command = f"luma train {_EXAMPLE} --data ade20k --dry-run"
            return f"no training and no forward pass was timed on {here}; try: {command}"
        name = _time_kind(kind)
        seen = self._evidence(name)
        if seen.num_here + seen.num_related or (self.lineup and self.lineup.own):
            return ""
        return f"no {name} was measured on {here}; try: luma profile {_EXAMPLE}"

    def anchors(self, workloads: Sequence[Workload], num: int = 1, kind: BudgetKind = "ms") -> list[Workload]:
        """The most informative segmenters to measure on this device, in order, without those measured already."""
        done = self._measured(kind)
        free = [each for each in workloads if each.key not in done]
        if len(free) > _MOST_CANDIDATES:
            free = [free[round(index * len(free) / _MOST_CANDIDATES)] for index in range(_MOST_CANDIDATES)]
        name, found = _time_kind(kind), self.lineup or lineup(("cuda half", "none"), "")
        seen, spread = self._evidence(name).points, times.spread_of(name, found)
        return [free[at] for at in times.to_measure(found.reference.points(free), num, seen, spread)] if free else []

    def _trainings(self, workloads: Sequence[Workload]) -> list[Quantity | None]:
        """GPU-hours of the usual training of each; None without an own run or a forward time."""
        here = [run for run in self.runs if run.device_name == self.device_name]
        latest = max(here, key=lambda run: run.started_at, default=None)
        usable = [run for run in here if latest is not None and run.dtype == latest.dtype]
        if usable and self.lineup is not None:
            return _hours_from_runs(workloads, usable, self.lineup)
        rates = self.quantities("images_per_second", workloads)
        if self.bench.rows and None in rates:
            latencies = self.quantities("ms", workloads)
            rates = [_rate(rate, latency) for rate, latency in zip(rates, latencies, strict=True)]
        return [_hours_from_forward(each, rate) for each, rate in zip(workloads, rates, strict=True)]

    @property
    def _dtype(self) -> str:
        """Number format of the weights: the measured one, otherwise that of timm's table."""
        if self.bench.conditions:
            return self.bench.conditions.dtype
        return "bfloat16" if self.speed_class and self.speed_class[0].endswith("half") else "float32"

    def _measured(self, kind: BudgetKind) -> dict[Key, Quantity]:
        found = ((row.key, quantity_of(kind, row)) for row in self.bench.answering)
        return {key: quantity for key, quantity in found if quantity is not None}

    def _predicted(self, kind: BudgetKind, workloads: Sequence[Workload]) -> list[Quantity | None]:
        if kind == "bytes":
            return predict_memory(self.bench, workloads, self._dtype)
        found = self.lineup
        if found is None:
            return [None] * len(workloads)
        if kind == "joules":
            return self._energies(workloads, found)
        if kind == "gpu_hours":
            return self._trainings(workloads)
        return self._timed(kind, workloads, found)

    def _timed(self, kind: BudgetKind, workloads: Sequence[Workload], found: Lineup) -> list[Quantity | None]:
        name = _time_kind(kind)
        seen = self._evidence(name)
        if not seen.num_here + seen.num_related:
            if not found.own:
                return [None] * len(workloads)
            if name == "latency":
                return self._alone(kind, workloads, found)
        far = times.extrapolated(workloads, self.bench)
        said = times.predict(name, found.reference.points(workloads), seen, found, far)
        quantities: list[Quantity | None] = []
        for each, mean, variance, is_far in zip(workloads, said.mean, said.variance, far, strict=True):
            notes = [_RELATED_ONLY] if seen.num_related and not seen.num_here else []
            if is_far:
                notes.append(f"extrapolated: no head was measured here at {LARGE_SIDE} px or more")
            if found.specified:
                notes.append("by specification")
            is_shipped = (
                found.own
                and not found.specified
                and not seen.num_here
                and each.head == "none"
                and found.reference.has_at(each)
            )
            origin: Origin = "shipped" if is_shipped else "predicted"
            quantities.append(_quantity(kind, mean, variance, origin, is_far, "; ".join(notes)))
        return quantities

    def _alone(self, kind: BudgetKind, workloads: Sequence[Workload], found: Lineup) -> list[Quantity | None]:
        """Latency of one image where only throughput or figures are known; on a CPU timm measured single images."""
        rates = self._timed("images_per_second", workloads, found)
        known = [each for each in rates if each is not None]
        log_ms = np.log([1000 / each.value for each in known])
        variance = (np.log([each.high / each.low for each in known]) / (2 * Z80)) ** 2
        note = ""
        if not found.reference.on_cpu:
            model = latencies(self.spec, self.runtime, self.published, not found.specified)
            there = [each for each, rate in zip(workloads, rates, strict=True) if rate is not None]
            log_ms, variance = model.predict(there, log_ms, variance)
            note = f"extrapolated from throughput at large batches and counted kernels, {_RUNTIME_TITLES[self.runtime]}"
        said = iter(zip(log_ms.tolist(), variance.tolist(), strict=True))
        quantities: list[Quantity | None] = []
        for rate in rates:
            if rate is None:
                quantities.append(None)
                continue
            notes = "; ".join(filter(None, (note, rate.note)))
            quantities.append(_quantity(kind, *next(said), "predicted", rate.extrapolated or bool(note), notes))
        return quantities

    def _energies(self, workloads: Sequence[Workload], found: Lineup) -> list[Quantity | None]:
        power = _power_of(self.bench)
        if power is None:
            return [None] * len(workloads)
        name, log_mean, power_variance, num = power
        far = times.extrapolated(workloads, self.bench)
        said = times.predict(name, found.reference.points(workloads), self._evidence(name), found, far)
        note = f"predicted time x power of {counted(num, 'measured row')}"
        return [
            _quantity("joules", mean + log_mean, variance + power_variance, "predicted", is_far, note)
            for mean, variance, is_far in zip(said.mean, said.variance, far, strict=True)
        ]

    def _evidence(self, kind: TimeKind) -> MeasuredTimes:
        return times.evidence(kind, self.bench, self.lineup or lineup(("cuda half", "none"), ""))


def _without_runtime(device: str | None) -> tuple[str | None, Runtime | None]:
    """`H100/eager` as name and runtime; the name as it is without one."""
    name, _, last = (device or "").rpartition("/")
    runtime = next((each for each in RUNTIMES if each == last.lower()), None)
    return (name, runtime) if name and runtime else (device, None)


def _time_kind(kind: BudgetKind) -> TimeKind:
    return "throughput" if kind == "images_per_second" else "latency"


def _quantity(
    kind: BudgetKind, log_value: float, variance: float, origin: Origin, extrapolated: bool, note: str
) -> Quantity:
    """The quantity in the kind's unit from log milliseconds, log joules or log hours."""
    value, factor = exp(log_value), exp(Z80 * sqrt(variance))
    if kind in ("fps", "images_per_second"):
        value = 1000 / value
    return Quantity(kind, value, value / factor, value * factor, origin, extrapolated, note)


def _rate(rate: Quantity | None, latency: Quantity | None) -> Quantity | None:
    """Images per second at large batches, otherwise at batch 1."""
    if rate is not None or latency is None:
        return rate
    fast, value, slow = (1000 / each for each in (latency.low, latency.value, latency.high))
    return Quantity("images_per_second", value, slow, fast, "predicted", True, "from latency at batch 1")


def _power_of(bench: Bench) -> tuple[TimeKind, float, float, int] | None:
    """Kind of time, mean and variance of log joules per millisecond, number of rows; None without measured energy."""
    rows = [row for row in (*bench.rows, *bench.related) if row.energy_joules and not bench.is_older(row)]
    kinds: tuple[TimeKind, ...] = ("throughput", "latency")
    for kind in kinds:
        logs = [log((row.energy_joules or 0) / ms) for row in rows if (ms := milliseconds(kind, row))]
        if logs:
            return kind, fmean(logs), _POWER_SD**2 * (1 + 1 / len(logs)), len(logs)
    return None


def predict_memory(bench: Bench, workloads: Sequence[Workload], dtype: str) -> list[Quantity | None]:
    """Peak bytes at batch 1 with weights in `dtype`; None where parameters or activations are not counted.

    All rows of the bench inform share and base, whatever head and environment. The memory column of the WTF benchmark
    is not used: it includes what a training in the same process left over (in the median 9.9 times the weights).
    """
    sizes = [_bytes_of(each, dtype) for each in workloads]
    known = np.array([size for size in sizes if size is not None], dtype=float).reshape(-1, 2)
    rows = [row for row in (*bench.rows, *bench.related) if row.memory_bytes and not row.own_module][:_MOST_ROWS]
    seen = [(*size, row.memory_bytes or 0) for row in rows if (size := _bytes_of(segmenter_of(row), dtype)) is not None]
    mean, covariance = _base_and_share(np.array(seen, dtype=float).reshape(-1, 3))
    weights, terms = known[:, 0], np.stack([np.ones(len(known)), known[:, 1]], axis=1)
    value = np.maximum(weights + terms @ mean, weights)
    half = Z80 * np.sqrt(((terms @ covariance) * terms).sum(1) + _memory_noise(value) ** 2)
    numbers = zip(value.tolist(), np.maximum(value - half, weights).tolist(), (value + half).tolist(), strict=True)
    largest = max((row.resolution for row in rows), default=0)
    assumed = "" if bench.conditions else f", {dtype} weights assumed"
    unseen = f"no memory was measured on {bench.device_name or 'any device'}{assumed}: from weights and counts alone"
    found: list[Quantity | None] = []
    for each, size in zip(workloads, sizes, strict=True):
        if size is None:
            found.append(None)
            continue
        far = each.head != "none" and each.resolution >= LARGE_SIDE > largest
        note = f"extrapolated: no memory was measured here at {LARGE_SIDE} px or more" if far else ""
        found.append(Quantity("bytes", *next(numbers), "predicted", far or not seen, note if seen else unseen))
    return found


def _bytes_of(workload: Workload, dtype: str) -> tuple[float, float] | None:
    """Bytes of a segmenter's weights, and of one image's activations."""
    activations = activations_of(workload)
    if workload.params is None or activations is None or dtype not in _BYTES:
        return None
    return float(workload.params * _BYTES[dtype]), float(activations * _BYTES[dtype])


def activations_of(workload: Workload) -> int | None:
    """Counted outputs of backbone and head; the head's masks are added where only the backbone's are known."""
    if workload.activations is not None:
        return workload.activations
    facts = load_costs().get((workload.architecture, workload.resolution))
    width = min(facts.width, _USUAL_WIDTH) if facts else _USUAL_WIDTH
    backbone = facts.activations if facts else _shipped_activations(workload.architecture, workload.resolution)
    side = workload.resolution // _MASK_STRIDE
    head = 0 if workload.head == "none" else side**2 * (_QUERIES + width)
    return None if backbone is None else backbone + head


def _shipped_activations(architecture: str, resolution: int) -> int | None:
    """Those of timm's classifier at its nearest size, in proportion to the area; None for another network."""
    rows = _shipped_rows().get(stem_of(architecture))
    if not rows:
        return None
    row = min(rows, key=lambda each: abs(each.resolution - resolution))
    return int(row.activations * (resolution / row.resolution) ** 2)


@cache
def _shipped_rows() -> dict[str, list[Classifier]]:
    found = defaultdict(list)
    for row in load_table().rows:
        found[stem_of(row.architecture)].append(row)
    return dict(found)


def _base_and_share(seen: Floats) -> tuple[Floats, Floats]:
    """Mean (2,) and covariance (2, 2) of base and share, given weights, activations and measured bytes (m, 3)."""
    prior_mean, prior_sd = np.array([_BASE_BYTES, _SHARE]), np.array([_BASE_SD, _SHARE_SD])
    terms, noise = np.stack([np.ones(len(seen)), seen[:, 1]], axis=1), _memory_noise(seen[:, 2])
    # In units of the prior's deviations: bytes and shares differ by 9 orders of magnitude.
    scaled = terms * prior_sd / noise[:, None]
    inverse = np.linalg.inv(np.eye(2) + scaled.T @ scaled)
    shift = inverse @ scaled.T @ ((seen[:, 2] - seen[:, 0] - terms @ prior_mean) / noise)
    return prior_mean + prior_sd * shift, inverse * np.outer(prior_sd, prior_sd)


def _memory_noise(measured: Floats) -> Floats:
    return np.asarray(np.maximum(_MEMORY_NOISE * measured, _LEAST_NOISE_BYTES))


@cache
def num_images_seen(num_classes: int) -> int | None:
    """Images seen in a training by the usual recipe of the dataset with so many classes; None for other numbers."""
    if num_classes not in _USUAL:
        return None
    name, num_train_images = _USUAL[num_classes]
    recipe = load_recipe(name)
    steps = recipe.steps or max(1, round(recipe.epochs * (num_train_images // recipe.batch)))
    return steps * recipe.batch


def trained_runs(records: Iterable[RunRecord]) -> list[TrainedRun]:
    """Runs of the store that measure training time: whole models, twenty steps or more, no frozen backbone."""
    return [
        _trained(run)
        for run in records
        if run.step >= _LEAST_STEPS
        and run.seconds > 0
        and run.batch > 0
        and not run.config.get("recipe", {}).get("freeze_backbone", False)
        and not run.config.get("imports")
    ]


def _trained(run: RunRecord) -> TrainedRun:
    workload = Workload(
        run.timm_name if ":" in run.timm_name else run.timm_name.split(".")[0],
        run.resolution,
        macs=run.facts.get("macs"),
        params=run.facts.get("params"),
        head=run.head,
        num_classes=run.config.get("head", {}).get("num_classes", 150),
    )
    identity = run.environment.identity
    return TrainedRun(
        workload,
        str(identity.get("device_name", "")),
        str(run.facts.get("dtype", "")),
        run.seconds * 1e3 * run.num_processes / (run.step * run.batch),
        run.started_at,
        str(identity.get("device", "cuda")).partition(":")[0],
    )


def _hours_from_runs(
    workloads: Sequence[Workload], runs: Sequence[TrainedRun], lineup: Lineup
) -> list[Quantity | None]:
    """The measured rate of a model that was trained here, the model of times for others."""
    wider = {name: max(getattr(lineup.spread, name), _RUN_MODEL_SD) for name in ("family", "stem", "size")}
    spread = replace(lineup.spread, scale=SHIPPED.scale, noise=_RUN_NOISE, **wider)
    seen = lineup.reference.points([run.workload for run in runs])
    targets = lineup.reference.points(workloads)
    said = posterior(targets, seen, np.log([run.ms_per_image for run in runs]), spread)
    note = f"from {counted(len(runs), 'own training run')} on this device"
    measured = {run.workload.key: run for run in runs}
    found: list[Quantity | None] = []
    for each, mean, variance in zip(workloads, said.mean, said.variance, strict=True):
        mine = measured.get(each.key)
        if mine is None:
            found.append(_gpu_hours(each, mean, variance, "predicted", note))
        else:
            own = log(mine.ms_per_image), _RUN_NOISE**2
            found.append(_gpu_hours(each, *own, "measured", "own run of this model"))
    return found


def _hours_from_forward(workload: Workload, rate: Quantity | None) -> Quantity | None:
    if rate is None:
        return None
    ratio = _RATIOS.get(workload.head, _RATIOS["luma"])
    sd = log(rate.high / rate.low) / (2 * Z80)
    note = f"forward time here x {ratio:g}, a step's ratio measured on a CPU; no own training run on this device"
    variance = sd**2 + _RATIO_SD**2
    return _gpu_hours(workload, log(1000 * ratio / rate.value), variance, "predicted", note, rate.extrapolated)


def _gpu_hours(
    workload: Workload, log_ms: float, variance: float, origin: Origin, note: str, extrapolated: bool = False
) -> Quantity | None:
    num_images = num_images_seen(workload.num_classes)
    if num_images is None:
        return None
    log_hours = log_ms + log(num_images / _MS_PER_HOUR)
    return _quantity("gpu_hours", log_hours, variance, origin, extrapolated, note)
