"""What a segmenter costs on one device: measured where it was measured, predicted with an interval elsewhere.

    model = SpeedModel.load(measured_rows(), "RTX 4090")
    model.quantity("ms", Workload("vit_base_patch16_dinov3", 512, macs=123_000_000_000))

Measured rows of exactly the same conditions answer as they are. Everything else is learned from them and from timm's
throughput of classifiers (`transfer`), and says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp, log, sqrt
from typing import TYPE_CHECKING

from luma_cli.catalogue.costs import load_costs
from luma_cli.catalogue.recipes import Recipe, load_recipe
from luma_cli.speed.bench import Bench, bench_of, key_of, key_of_row, quantity_of
from luma_cli.speed.quantity import Z80, Measured, Origin, Quantity, Workload
from luma_cli.speed.reference import Classifier, Lineup, class_of, lineup, load_table, shipped_name
from luma_cli.speed.times import (
    LARGE_SIDE,
    Anchor,
    TimeKind,
    choose,
    evidence,
    extrapolated,
    milliseconds,
    predict,
    spread_of,
    workload_of,
)
from luma_cli.speed.transfer import SHIPPED, LogNormal, Points, posterior, stem_of
from luma_cli.units import BudgetKind

if TYPE_CHECKING:
    from luma_cli.speed.reference import Lineup
    from luma_cli.speed.times import Evidence, TimeKind
    from luma_cli.speed.transfer import Floats, LogNormal
    from luma_cli.store.records import RunRecord


_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Before any measurement: a process takes 0.2 to 0.9 GiB (CUDA context or interpreter), and a hundredth to all of the
# activations are alive at once.
_BASE_BYTES, _BASE_SD = 0.6 * 2**30, 0.3 * 2**30
_SHARE, _SHARE_SD = 0.4, 0.3
_MEMORY_NOISE, _LEAST_NOISE_BYTES = 0.06, 32 * 2**20
_QUERIES, _MASK_STRIDE, _USUAL_WIDTH = 100, 4, 768
_MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Size:
    """A segmenter's bytes: of its weights, and of all activations of one image."""

    weights: float
    activations: float


def predict_memory(bench: Bench, workloads: Sequence[Workload], dtype: str) -> list[Quantity | None]:
    """Peak bytes at batch 1 with weights in `dtype`; None where parameters or activations were never counted.

    What was measured on the bench moves share and base, also where heads and environments differ.
    """
    import numpy as np

    sizes = [size_of(each, dtype) for each in workloads]
    known = [size for size in sizes if size is not None]
    seen = _memory_evidence(bench, dtype)
    mean, cov = _memory_posterior(*seen)
    if not known:
        return [None] * len(sizes)
    terms = np.array([[1.0, size.activations] for size in known])
    weights = np.array([size.weights for size in known])
    value = np.maximum(weights + terms @ mean, weights)
    sd = np.sqrt(((terms @ cov) * terms).sum(1) + _memory_noise(value) ** 2)
    low, high = np.maximum(value - Z80 * sd, weights), value + Z80 * sd
    numbers = iter(zip(value.tolist(), low.tolist(), high.tolist(), strict=True))
    largest = max((row.resolution for row in _with_memory(bench)), default=0)
    return [
        None if size is None else _memory(next(numbers), each, len(seen[0]), largest, _place(bench, dtype))
        for each, size in zip(workloads, sizes, strict=True)
    ]


def size_of(workload: Workload, dtype: str) -> Size | None:
    """Bytes of weights and activations in the number format; activations of the head by its map and masks."""
    activations = activations_of(workload)
    if workload.params is None or activations is None or dtype not in _BYTES:
        return None
    return Size(float(workload.params * _BYTES[dtype]), float(activations * _BYTES[dtype]))


def activations_of(workload: Workload) -> int | None:
    """Counted outputs of backbone and head; where only the backbone's are known, the head's masks are added."""
    if workload.activations is not None:
        return workload.activations
    facts = load_costs().get((workload.architecture, workload.resolution))
    width = min(facts.width, _USUAL_WIDTH) if facts else _USUAL_WIDTH
    backbone = facts.activations if facts else _shipped_activations(workload.architecture, workload.resolution)
    side = workload.resolution // _MASK_STRIDE
    head = 0 if workload.head == "none" else side**2 * (_QUERIES + width)
    return None if backbone is None else backbone + head


def _shipped_activations(architecture: str, resolution: int) -> int | None:
    """Those of timm's classifier at its nearest size, in proportion to the area; None for a network it has not."""
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


def _memory(
    numbers: tuple[float, float, float], workload: Workload, num_rows: int, largest: int, place: str
) -> Quantity:
    value, low, high = numbers
    extrapolated = workload.head != "none" and workload.resolution >= LARGE_SIDE > largest
    notes = [] if num_rows else [f"no memory was measured on {place}: from weights and counts alone"]
    notes += (
        [f"extrapolated: nothing at {LARGE_SIDE} px or more was measured here"] if extrapolated and num_rows else []
    )
    return Quantity("bytes", value, low, high, "predicted", extrapolated or not num_rows, "; ".join(notes))


def _place(bench: Bench, dtype: str) -> str:
    return f"{bench.device_name or 'any device'}{'' if bench.conditions else f', {dtype} weights assumed'}"


def _with_memory(bench: Bench) -> list[Measured]:
    return [row for row in (*bench.rows, *bench.related) if row.memory_bytes and not row.own_module][:_MOST_ROWS]


def _memory_evidence(bench: Bench, dtype: str) -> tuple[Floats, Floats, Floats]:
    """(m, 2) terms, (m,) bytes beyond weights, (m,) noise of the measured rows."""
    import numpy as np

    found = [(size_of(workload_of(row), dtype), float(row.memory_bytes or 0)) for row in _with_memory(bench)]
    usable = [(size, measured) for size, measured in found if size is not None]
    terms = np.array([[1.0, size.activations] for size, _ in usable]).reshape(-1, 2)
    beyond = np.array([measured - size.weights for size, measured in usable])
    return terms, beyond, _memory_noise(np.array([measured for _, measured in usable]))


def _memory_posterior(terms: Floats, beyond: Floats, noise: Floats) -> tuple[Floats, Floats]:
    """Mean (2,) and covariance (2, 2) of base and share."""
    import numpy as np

    prior_mean, prior_sd = np.array([_BASE_BYTES, _SHARE]), np.array([_BASE_SD, _SHARE_SD])
    # In units of the prior's deviations: bytes and shares differ by 9 orders of magnitude.
    scaled = terms * prior_sd / noise[:, None]
    inverse = np.linalg.inv(np.eye(2) + scaled.T @ scaled)
    shift = inverse @ scaled.T @ ((beyond - terms @ prior_mean) / noise)
    mean: Floats = prior_mean + prior_sd * shift
    cov: Floats = inverse * np.outer(prior_sd, prior_sd)
    return mean, cov


def _memory_noise(measured: Floats) -> Floats:
    import numpy as np

    total: Floats = np.maximum(_MEMORY_NOISE * measured, _LEAST_NOISE_BYTES)
    return total


# Log deviation of power between models on one device: large ones fill it, small ones do not.
_POWER_SD = 0.2


@dataclass(frozen=True, slots=True)
class Power:
    """Joules per millisecond, i.e. kilowatts, of segmenters on one device, as log mean and variance. num: rows."""

    kind: TimeKind
    log_mean: float
    variance: float
    num: int

    def energy(self, times: LogNormal) -> LogNormal:
        """Log joules per image from log milliseconds per image."""
        from luma_cli.speed.transfer import LogNormal

        return LogNormal(times.mean + self.log_mean, times.variance + self.variance)


def power_of(bench: Bench) -> Power | None:
    """Power of the bench by the rows that measured energy and time, at the plateau where that was timed; else None."""
    from math import log
    from statistics import fmean

    for kind in ("throughput", "latency"):
        logs = [log(row.energy_joules / ms) for row, ms in _with_energy(bench, kind) if row.energy_joules]
        if logs:
            return Power(kind, fmean(logs), _POWER_SD**2 * (1 + 1 / len(logs)), len(logs))
    return None


def _with_energy(bench: Bench, kind: TimeKind) -> list[tuple[Measured, float]]:
    rows = (*bench.rows, *(row for row in bench.related if not bench.is_older(row)))
    return [(row, ms) for row in rows if row.energy_joules and (ms := milliseconds(kind, row))]


# Geometric means of the two sizes in docs/heads_speed.md; linear: between a plain backward (3) and LUMA's.
_RATIOS: Mapping[str, float] = {"luma": 3.4, "eomt": 5.3, "linear": 3.2, "none": 3.0}
_RATIO_SD = 0.35
# Validations, data loading and micro-batches differ between runs of one model.
_RUN_NOISE, _MODEL_SD = 0.1, 0.2
_LEAST_STEPS = 20
_MS_PER_HOUR = 3.6e6
# Dataset by number of classes: recipe of that name, and images of its training split.
_USUAL: Mapping[int, tuple[str, int]] = {150: ("ade20k", 20_210), 19: ("cityscapes", 2_975)}


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """What a run took. ms_per_image: wall time x processes per training image, validations included.

    device: `cuda` or `cpu`. dtype: number format of the steps.
    """

    workload: Workload
    device_name: str
    dtype: str
    ms_per_image: float
    started_at: str = ""
    device: str = "cuda"


@dataclass(frozen=True, slots=True)
class Job:
    """A training: what, and how many images it sees (steps x images per step)."""

    workload: Workload
    num_images: int


def job_of(workload: Workload, recipe: Recipe | None = None, num_train_images: int = 0) -> Job | None:
    """The training with the recipe; with the usual one of the dataset by the number of classes when None.

    None for another number of classes, whose dataset nobody knows.
    """
    if recipe is None:
        if workload.num_classes not in _USUAL:
            return None
        name, num_train_images = _USUAL[workload.num_classes]
        recipe = _usual_recipe(name)
    steps = recipe.steps or max(1, round(recipe.epochs * (num_train_images // recipe.batch)))
    return Job(workload, steps * recipe.batch)


@cache
def _usual_recipe(name: str) -> Recipe:
    return load_recipe(name)


def trained_runs(records: Iterable[RunRecord]) -> list[TrainedRun]:
    """Runs of the store that tell what training takes: whole models, twenty steps or more, no frozen backbone."""
    return [_trained(each) for each in records if _tells(each)]


def _tells(run: RunRecord) -> bool:
    frozen = run.config.get("recipe", {}).get("freeze_backbone", False)
    return (
        run.step >= _LEAST_STEPS and run.seconds > 0 and run.batch > 0 and not frozen and not run.config.get("imports")
    )


def _trained(run: RunRecord) -> TrainedRun:
    head = run.config.get("head", {})
    workload = Workload(
        run.timm_name if ":" in run.timm_name else run.timm_name.split(".")[0],
        run.resolution,
        macs=run.facts.get("macs"),
        params=run.facts.get("params"),
        head=run.head,
        num_classes=head.get("num_classes", 150),
    )
    return TrainedRun(
        workload,
        str(run.environment.identity.get("device_name", "")),
        str(run.facts.get("dtype", "")),
        run.seconds * 1e3 * run.num_processes / (run.step * run.batch),
        run.started_at,
        str(run.environment.identity.get("device", "cuda")).partition(":")[0],
    )


def device_of(runs: Sequence[TrainedRun], device: str | None) -> tuple[str, tuple[str, str] | None]:
    """The device that something was trained on, as the run names it, and its class; nothing where none or several."""
    names = {run.device_name for run in runs if device is None or device.lower() in run.device_name.lower()}
    if len(names) != 1:
        return "", None
    latest = max((run for run in runs if run.device_name in names), key=lambda run: run.started_at)
    return latest.device_name, (f"{latest.device} {'fp32' if latest.dtype == 'float32' else 'half'}", "none")


def predict_training(
    jobs: Sequence[Job | None],
    runs: Sequence[TrainedRun],
    lineup: Lineup | None,
    forward: Sequence[Quantity | None],
    device_name: str,
) -> list[Quantity | None]:
    """GPU-hours of each job on the device, None where nothing on it tells.

    runs: of any device; those on this one in the number format of the latest count. forward: images per second of each
    job's model. lineup: what the device's speed is referred to.
    """
    here = [run for run in runs if run.device_name == device_name]
    latest = max(here, key=lambda run: run.started_at, default=None)
    usable = [run for run in here if latest is not None and run.dtype == latest.dtype]
    if usable and lineup is not None:
        return _from_runs(jobs, usable, lineup)
    return [_from_forward(job, rate) for job, rate in zip(jobs, forward, strict=True)]


def _from_runs(jobs: Sequence[Job | None], runs: Sequence[TrainedRun], lineup: Lineup) -> list[Quantity | None]:
    import numpy as np

    wider = {name: max(getattr(lineup.spread, name), _MODEL_SD) for name in ("family", "stem", "size")}
    spread = replace(lineup.spread, scale=SHIPPED.scale, noise=_RUN_NOISE, **wider)
    seen = lineup.reference.points([run.workload for run in runs])
    asked = [job for job in jobs if job is not None]
    targets: Points = lineup.reference.points([job.workload for job in asked])
    said = posterior(targets, seen, np.log([run.ms_per_image for run in runs]), spread)
    own = f"from {len(runs)} own training run{'s' if len(runs) > 1 else ''} on this device"
    found = iter(_hours(job, said, index, own) for index, job in enumerate(asked))
    measured = {key_of(run.workload): run for run in runs}
    return [None if job is None else _or_measured(job, next(found), measured) for job in jobs]


def _or_measured(job: Job, said: Quantity, runs: Mapping[tuple[str, int, str, int], TrainedRun]) -> Quantity:
    """The job's own model as it was trained here, where it was: its rate is measured, its number of images is asked."""
    run = runs.get(key_of(job.workload))
    if run is None:
        return said
    return _gpu_hours(job, log(run.ms_per_image), _RUN_NOISE**2, "measured", "an own run of this very model")


def _hours(job: Job, said: LogNormal, index: int, note: str) -> Quantity:
    return _gpu_hours(job, float(said.mean[index]), float(said.variance[index]), "predicted", note)


def _from_forward(job: Job | None, rate: Quantity | None) -> Quantity | None:
    if job is None or rate is None:
        return None
    ratio = _RATIOS.get(job.workload.head, _RATIOS["luma"])
    sd = log(rate.high / rate.low) / (2 * Z80)
    note = f"forward time here x {ratio:g}, a step's ratio measured on a CPU; no own training run on this device"
    return _gpu_hours(job, log(1000 * ratio / rate.value), sd**2 + _RATIO_SD**2, "predicted", note, rate.extrapolated)


def _gpu_hours(
    job: Job, log_ms: float, variance: float, origin: Origin, note: str, extrapolated: bool = False
) -> Quantity:
    value, factor = exp(log_ms) * job.num_images / _MS_PER_HOUR, exp(Z80 * sqrt(variance))
    return Quantity("gpu_hours", value, value / factor, value * factor, origin, extrapolated, note)


# How a shipped device that was never measured here is taken to be used, in order of preference.
_SHIPPED_CLASSES = (("cuda half", "none"), ("cuda half", "default"), ("cpu fp32", "default"))
# Latency of one image on a GPU of which only throughput ships: the time at large batches, times what idle units cost,
# or the time of eager launches where that is longer. Lower end, middle, upper end: assumed; measured ones replace it.
_ALONE, _LAUNCH_MS = (1.0, 1.2, 1.6), (0.0, 6.0, 16.0)
_BOUNDED = (
    "extrapolated: throughput at large batches bounds the latency of one image from below; "
    f"launches alone are taken to need {_LAUNCH_MS[1]:g} ms ({_LAUNCH_MS[0]:g} to {_LAUNCH_MS[2]:g})"
)
_NOTHING = "nothing was measured on this device"
_RELATED_ONLY = "measured here only with another head, or before driver, torch or power limit changed"
_RATES: tuple[BudgetKind, ...] = ("images_per_second", "ms")
_MACS_OR_PARAMS = ("macs", "params")


@dataclass(frozen=True, slots=True)
class SpeedModel:
    """Time, memory and energy of segmenters on one device under one set of conditions.

    bench: its measured rows. device_name: as the store has it, else timm's name, else as asked. shipped: timm's name of
    the device where its throughput ships, else empty. speed_class: device kind with precision, and compile mode. runs:
    the user's trainings on any device.
    """

    bench: Bench
    device_name: str
    shipped: str
    speed_class: tuple[str, str] | None
    runs: tuple[TrainedRun, ...] = ()

    @staticmethod
    def load(
        measured: Sequence[Measured],
        device: str | None = None,
        *,
        head: str = "luma",
        environment: str | None = None,
        runs: Sequence[TrainedRun] = (),
    ) -> SpeedModel:
        """The model of `device` (as the store, timm's table or the user name it), from rows that were measured there.

        device: None for the only one that was measured. environment: identity of the present machine as JSON, the
        latest measured one when None. runs: the user's trainings (`training.trained_runs`), for GPU-hours. Raises
        UsageError when several devices could be meant.
        """
        bench = bench_of(measured, device, head=head, environment=environment)
        name = shipped_name(bench.device_name) if bench.device_name else ""
        if bench.conditions is not None:
            return SpeedModel(bench, bench.device_name, name, class_of(bench.conditions), tuple(runs))
        classes = [each for each in _SHIPPED_CLASSES if name and lineup(each, name).own]
        if classes:
            return SpeedModel(bench, name, name, classes[0], tuple(runs))
        trained, speed_class = device_of(runs, device)
        return SpeedModel(bench, trained or bench.device_name, "", speed_class, tuple(runs))

    @property
    def lineup(self) -> Lineup | None:
        """The shipped reference of the device's class, None without a device."""
        return None if self.speed_class is None else lineup(self.speed_class, self.shipped)

    @property
    def basis(self) -> str:
        """One line for captions: the device, what was measured on it, and what predictions stand on."""
        found = self.lineup
        if found is None:
            return self.why("ms")
        num, older = len(self.bench.rows), self.bench.num_older
        label = (
            self.bench.conditions.label if self.bench.conditions else f"{self.device_name}, {_mode(self.speed_class)}"
        )
        parts = [f"{num} measured" if num else "nothing was measured here"]
        parts += [f"{older} older rows, from another driver, torch or power limit, as evidence"] if older else []
        parts += [f"{self.bench.num_left_out} rows of other conditions left out"] if self.bench.num_left_out else []
        sources = f"these and {found.why}" if num + older else found.why
        return f"{label}: {'; '.join(parts)}; {'others' if num else 'all'} predicted from {sources}"

    def quantity(self, kind: BudgetKind, workload: Workload) -> Quantity | None:
        """The cost of one segmenter; None where nothing can be said, and `why(kind)` says the reason."""
        return self.quantities(kind, [workload])[0]

    def quantities(self, kind: BudgetKind, workloads: Sequence[Workload]) -> list[Quantity | None]:
        """The costs of many segmenters, in their order: exact counts, measured numbers, else predictions."""
        if kind in _MACS_OR_PARAMS:
            return [_exact(kind, each) for each in workloads]
        measured = self._measured(kind)
        found: list[Quantity | None] = [measured.get(key_of(each)) for each in workloads]
        rest = [index for index, each in enumerate(found) if each is None]
        if rest:
            predicted = self._predicted(kind, [workloads[index] for index in rest])
            for index, quantity in zip(rest, predicted, strict=True):
                found[index] = quantity
        return found

    def why(self, kind: BudgetKind) -> str:
        """Why a kind has no predictions; empty when it has."""
        here = self.device_name or "any device"
        if kind in (*_MACS_OR_PARAMS, "bytes"):
            return ""
        if self.speed_class is None:
            return f"nothing was measured on {here}, and no throughput of it ships; try: luma profile"
        if kind == "joules":
            return "" if power_of(self.bench) else f"no energy was measured on {here}; try: luma profile"
        if kind == "gpu_hours":
            return self._why_no_hours(here)
        seen = self._evidence("throughput" if kind == "images_per_second" else "latency")
        if seen.num_here + seen.num_related or (self.lineup and self.lineup.own):
            return ""
        name = "throughput" if kind == "images_per_second" else "latency"
        return f"no {name} was measured on {here}; try: luma profile"

    def _why_no_hours(self, here: str) -> str:
        if any(run.device_name == self.device_name for run in self.runs):
            return ""
        forward = any(not self.why(kind) for kind in _RATES)
        return "" if forward else f"no training and no forward pass was timed on {here}; try: luma train --dry-run"

    def anchors(self, workloads: Sequence[Workload], num: int = 1, kind: BudgetKind = "ms") -> list[Anchor]:
        """Which of the segmenters to measure on this device, in order; those measured already are left out."""
        done = self._measured(kind)
        free = [each for each in workloads if key_of(each) not in done]
        time_kind: TimeKind = "throughput" if kind == "images_per_second" else "latency"
        found = self.lineup or lineup(("cuda half", "none"), "")
        seen = self._evidence(time_kind, found).points
        spread = spread_of(time_kind, found)
        return choose(found.reference.points(free), free, num, seen, spread) if free else []

    @property
    def _dtype(self) -> str:
        """Number format of the weights: the measured one, else that of timm's table."""
        if self.bench.conditions:
            return self.bench.conditions.dtype
        return "bfloat16" if self.speed_class and self.speed_class[0].endswith("half") else "float32"

    def training(self, jobs: Sequence[Job | None]) -> list[Quantity | None]:
        """GPU-hours of trainings on this device (`training.job_of`); None where no run and no forward time tells."""
        loads = [job.workload for job in jobs if job is not None]
        rates = self.quantities("images_per_second", loads)
        if self.bench.rows and None in rates:
            latencies = self.quantities("ms", loads)
            rates = [_rate(rate, latency) for rate, latency in zip(rates, latencies, strict=True)]
        left = iter(rates)
        forward = [None if job is None else next(left) for job in jobs]
        return predict_training(jobs, self.runs, self.lineup, forward, self.device_name)

    def _measured(self, kind: BudgetKind) -> dict[tuple[str, int, str, int], Quantity]:
        found = ((key_of_row(row), quantity_of(kind, row)) for row in self.bench.answering)
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
            return self.training([job_of(each) for each in workloads])
        if kind == "images_per_second":
            return self._timed(kind, "throughput", workloads, found)
        return self._timed(kind, "latency", workloads, found)

    def _timed(
        self, kind: BudgetKind, time_kind: TimeKind, workloads: Sequence[Workload], found: Lineup
    ) -> list[Quantity | None]:
        seen = self._evidence(time_kind, found)
        if not seen.num_here + seen.num_related:
            if not found.own:
                return [None] * len(workloads)
            if time_kind == "latency":
                rates = self._timed("images_per_second", "throughput", workloads, found)
                return [_bounded(kind, each, found.reference.on_cpu) for each in rates]
        said, extrapolated = self._said(time_kind, workloads, found, seen)
        notes = [self._note(each, far, found, seen) for each, far in zip(workloads, extrapolated, strict=True)]
        origins = [self._origin(each, found, seen) for each in workloads]
        return _quantities(kind, said, origins, extrapolated, notes)

    def _said(
        self, kind: TimeKind, workloads: Sequence[Workload], found: Lineup, seen: Evidence
    ) -> tuple[LogNormal, list[bool]]:
        far = extrapolated(workloads, self.bench)
        return predict(kind, found.reference.points(workloads), seen, found, far), far

    def _energies(self, workloads: Sequence[Workload], found: Lineup) -> list[Quantity | None]:
        power = power_of(self.bench)
        if power is None:
            return [None] * len(workloads)
        seen = self._evidence(power.kind, found)
        said, extrapolated = self._said(power.kind, workloads, found, seen)
        note = f"predicted time x power of {power.num} measured row{'s' if power.num > 1 else ''}"
        origins: list[Origin] = ["predicted"] * len(workloads)
        return _quantities("joules", power.energy(said), origins, extrapolated, [note] * len(workloads))

    def _evidence(self, kind: TimeKind, found: Lineup | None = None) -> Evidence:
        return evidence(kind, self.bench, found or self.lineup or lineup(("cuda half", "none"), ""))

    def _origin(self, workload: Workload, found: Lineup, seen: Evidence) -> Origin:
        is_shipped = found.own and not seen.num_here and workload.head == "none"
        return "shipped" if is_shipped and found.reference.has_at(workload) else "predicted"

    def _note(self, workload: Workload, extrapolated: bool, found: Lineup, seen: Evidence) -> str:
        notes = [] if seen.num_here else [_RELATED_ONLY if seen.num_related else _NOTHING]
        if extrapolated:
            notes.append(f"extrapolated: nothing at {LARGE_SIDE} px or more with a head was measured here")
        if not found.reference.has(workload):
            notes.append("no throughput of this network ships")
        return "; ".join(notes)


def _rate(rate: Quantity | None, latency: Quantity | None) -> Quantity | None:
    """Images per second at large batches; failing that, one image after another."""
    if rate is not None or latency is None:
        return rate
    fast, value, slow = (1000 / each for each in (latency.low, latency.value, latency.high))
    return Quantity("images_per_second", value, slow, fast, "predicted", True, "from latency at batch 1")


def _exact(kind: BudgetKind, workload: Workload) -> Quantity | None:
    value = workload.macs if kind == "macs" else workload.params
    return None if value is None else Quantity(kind, float(value), float(value), float(value), "exact")


def _mode(speed_class: tuple[str, str] | None) -> str:
    return f"{speed_class[0]}, compile {speed_class[1]}" if speed_class else "no conditions"


def _quantities(
    kind: BudgetKind, said: LogNormal, origins: Sequence[Origin], extrapolated: Sequence[bool], notes: Sequence[str]
) -> list[Quantity | None]:
    """Quantities in the kind's unit from log milliseconds or log joules."""
    numbers = zip(said.mean.tolist(), said.variance.tolist(), origins, extrapolated, notes, strict=True)
    return [_quantity(kind, *each) for each in numbers]


def _quantity(kind: BudgetKind, mean: float, variance: float, origin: Origin, far: bool, note: str) -> Quantity:
    value, factor = exp(mean), exp(Z80 * sqrt(variance))
    if kind in ("fps", "images_per_second"):
        value = 1000 / value
    return Quantity(kind, value, value / factor, value * factor, origin, far, note)


def _bounded(kind: BudgetKind, rate: Quantity | None, on_cpu: bool) -> Quantity | None:
    """Latency of one image where only throughput ships; on a CPU timm took one image at a time."""
    if rate is None:
        return None
    times_ms = [1000 / each for each in (rate.high, rate.value, rate.low)]
    if not on_cpu:
        bounds = zip(times_ms, _ALONE, _LAUNCH_MS, strict=True)
        times_ms = [max(factor * time_ms, launch) for time_ms, factor, launch in bounds]
    low, value, high = times_ms
    if kind == "fps":
        low, value, high = 1000 / high, 1000 / value, 1000 / low
    note = "" if on_cpu else _BOUNDED
    far = rate.extrapolated or not on_cpu
    return Quantity(kind, value, low, high, "predicted", far, "; ".join(filter(None, (note, rate.note))))
