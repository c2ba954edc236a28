"""What a segmenter costs on one device: measured where it was measured, predicted with an interval elsewhere.

    model = SpeedModel.load(measured_rows(), "RTX 4090")
    model.quantity("ms", Workload("vit_base_patch16_dinov3", 512, macs=123_000_000_000))

Measured rows of exactly the same conditions answer as they are. Everything else is learned from them and from timm's
throughput of classifiers (`transfer`), and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, sqrt
from typing import TYPE_CHECKING

from luma_cli.speed import anchor, energy, memory, times, training
from luma_cli.speed.anchor import Anchor
from luma_cli.speed.bench import Bench, bench_of, key_of, key_of_row, quantity_of
from luma_cli.speed.lineup import Lineup, class_of, lineup, shipped_name
from luma_cli.speed.measured import Measured
from luma_cli.speed.quantity import Z80, Origin, Quantity, Workload
from luma_cli.units import BudgetKind

if TYPE_CHECKING:
    from luma_cli.speed.times import Evidence, TimeKind
    from luma_cli.speed.training import Job, TrainedRun
    from luma_cli.speed.transfer import LogNormal

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
        trained, speed_class = training.device_of(runs, device)
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
            return "" if energy.power_of(self.bench) else f"no energy was measured on {here}; try: luma profile"
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
        spread = times.spread_of(time_kind, found)
        return anchor.choose(found.reference.points(free), free, num, seen, spread) if free else []

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
        return training.predict(jobs, self.runs, self.lineup, forward, self.device_name)

    def _measured(self, kind: BudgetKind) -> dict[tuple[str, int, str, int], Quantity]:
        found = ((key_of_row(row), quantity_of(kind, row)) for row in self.bench.answering)
        return {key: quantity for key, quantity in found if quantity is not None}

    def _predicted(self, kind: BudgetKind, workloads: Sequence[Workload]) -> list[Quantity | None]:
        if kind == "bytes":
            return memory.predict(self.bench, workloads, self._dtype)
        found = self.lineup
        if found is None:
            return [None] * len(workloads)
        if kind == "joules":
            return self._energies(workloads, found)
        if kind == "gpu_hours":
            return self.training([training.job_of(each) for each in workloads])
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
        extrapolated = times.extrapolated(workloads, self.bench)
        points = found.reference.points(workloads)
        return times.predict(kind, points, seen, found, extrapolated), extrapolated

    def _energies(self, workloads: Sequence[Workload], found: Lineup) -> list[Quantity | None]:
        power = energy.power_of(self.bench)
        if power is None:
            return [None] * len(workloads)
        seen = self._evidence(power.kind, found)
        said, extrapolated = self._said(power.kind, workloads, found, seen)
        note = f"predicted time x power of {power.num} measured row{'s' if power.num > 1 else ''}"
        origins: list[Origin] = ["predicted"] * len(workloads)
        return _quantities("joules", power.energy(said), origins, extrapolated, [note] * len(workloads))

    def _evidence(self, kind: TimeKind, found: Lineup | None = None) -> Evidence:
        return times.evidence(kind, self.bench, found or self.lineup or lineup(("cuda half", "none"), ""))

    def _origin(self, workload: Workload, found: Lineup, seen: Evidence) -> Origin:
        is_shipped = found.own and not seen.num_here and workload.head == "none"
        return "shipped" if is_shipped and found.reference.has_at(workload) else "predicted"

    def _note(self, workload: Workload, extrapolated: bool, found: Lineup, seen: Evidence) -> str:
        notes = [] if seen.num_here else [_RELATED_ONLY if seen.num_related else _NOTHING]
        if extrapolated:
            notes.append(f"extrapolated: nothing at {times.LARGE_SIDE} px or more with a head was measured here")
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
