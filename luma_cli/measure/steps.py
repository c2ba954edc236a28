"""The steps of one measurement, in order, each leaving its numbers in the findings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from luma_cli.measure.accelerator import Cpu, Cuda, Peaks, capture, is_out_of_memory
from luma_cli.measure.attention import attention_kernels
from luma_cli.measure.nvml import Load, measure_energy, watched
from luma_cli.measure.runner import Options
from luma_cli.measure.subject import Subject
from luma_cli.measure.timing import Bounds, Call, Samples, Trial, measure, median, search, summarise
from luma_cli.store.records import Configuration, Metric

_GRAPHED = ("reduce-overhead", "max-autotune")  # compile modes that use CUDA graphs of their own
_LARGEST_BATCH = {"cpu": 64, "cuda": 1024}
_LONGEST_CALL_SECONDS = 2.0
_LAYOUT_TRIAL_BATCH = {"cpu": 1, "cuda": 16}


@dataclass(slots=True)
class Findings:
    """Metrics, notes and provenance, filled step by step and kept when a later step fails.

    `say` reports the step to the sweep.
    """

    say: Callable[[str], None]
    batch: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, unit: str, values: Sequence[float], *, tail: bool = False, noisy: bool = False) -> None:
        """The metric of these samples; `tail` adds the 90th percentile."""
        self.metrics[name] = summarise(name, unit, values, tail=tail, noisy=noisy)

    def add_peaks(self, peaks: Peaks, suffix: str = "") -> None:
        """The memory columns that are known, in bytes."""
        for column in ("allocated", "reserved", "device"):
            value = getattr(peaks, column)
            if value is not None:
                self.add(f"memory_{column}{suffix}", "bytes", [float(value)])
        self.notes["memory_method"] = peaks.method


@dataclass(frozen=True, slots=True)
class Steps:
    """Measures one subject. Runs inside inference mode and the attention asked for."""

    configuration: Configuration
    options: Options
    subject: Subject
    accelerator: Cpu
    findings: Findings

    def run(self) -> None:
        """All steps."""
        self.choose_layout()
        self.compile()
        self.measure_memory(1)
        self.measure_latency()
        self.measure_graph_latency()
        self.findings.batch = self.configuration.batch or self.search_batch()
        self.measure_plateau_memory()
        self.measure_throughput()
        self.measure_energy()
        self.list_kernels()

    def choose_layout(self) -> None:
        """Channels last as asked; `auto` tries both on convolutional models and keeps the faster."""
        asked = self.configuration.channels_last
        if asked == "auto" and self.subject.is_convolutional:
            self.findings.say("memory layout")
            seconds = {layout: self._layout_seconds(layout) for layout in ("off", "on")}
            self.findings.notes["layout_seconds"] = seconds
            asked = "on" if seconds["on"] < seconds["off"] else "off"
        self.subject.set_layout(torch.channels_last if asked == "on" else torch.contiguous_format)
        self.findings.notes["channels_last"] = asked == "on"

    def _layout_seconds(self, layout: str) -> float:
        """Median seconds per call in one layout; falls back to batch 1 when memory is short."""
        self.subject.set_layout(torch.channels_last if layout == "on" else torch.contiguous_format)
        size = _LAYOUT_TRIAL_BATCH[self.accelerator.kind]
        trial = self._try(size, measure_peak=False)
        if trial.outcome == "oom":
            trial, size = self._try(1, measure_peak=False), 1
        return size / trial.images_per_second if trial.images_per_second else float("inf")

    def compile(self) -> None:
        """Compile, once per process and static shape; the seconds are of the first compiled call."""
        if self.configuration.compile == "none":
            return
        self.findings.say("compiling")
        self.subject.compile(self.configuration.compile)
        call = self.subject.caller(1, 1)
        start = time.perf_counter()
        call(0)
        self.accelerator.synchronize()
        self.findings.notes["compile_seconds"] = time.perf_counter() - start

    def measure_memory(self, size: int, suffix: str = "") -> None:
        """Peaks at this batch with one input of it; cuDNN's benchmark, which can triple them, stays off."""
        self.findings.say(f"memory at batch {size}")
        call = self.subject.caller(size, 1)
        call(0)
        self.accelerator.synchronize()
        self.findings.add_peaks(self.accelerator.peaks(lambda: call(0)), suffix)

    def measure_plateau_memory(self) -> None:
        """Peaks at the batch chosen, before its throughput lets cuDNN pick kernels with larger workspaces."""
        size = self.findings.batch or 1
        if size > 1:
            self.measure_memory(size, "_plateau")
            return
        metrics = self.findings.metrics  # at batch 1 it is the same call as before: its peaks are known
        for name in ("memory_allocated", "memory_reserved", "memory_device"):
            if name in metrics:
                metrics[f"{name}_plateau"] = replace(metrics[name], name=f"{name}_plateau")

    def measure_latency(self) -> None:
        """Single calls at batch 1."""
        self.findings.say("latency")
        self._time_latency("latency_eager", self.subject.caller(1))

    def _time_latency(self, name: str, call: Call) -> None:
        samples = self._timed(call, name)
        self.findings.add(name, "ms", [1e3 * each for each in samples.seconds], tail=True, noisy=samples.noisy)

    def measure_graph_latency(self) -> None:
        """Single calls at batch 1 without launches, on CUDA; why there is none otherwise."""
        if self.accelerator.kind != "cuda":
            return
        if self.configuration.compile in _GRAPHED:
            self.findings.notes["cuda_graph"] = f"compile {self.configuration.compile} replays graphs of its own"
            return
        self.findings.say("latency under a CUDA graph")
        try:
            with self.accelerator.tuned():  # the kernels of the eager latency, so that only launches differ
                replay = capture(self.subject.module, self.subject.inputs(1))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.findings.notes["cuda_graph"] = f"capture failed: {str(error).splitlines()[0]}"
            return
        self._time_latency("latency_cuda_graph", replay)

    def search_batch(self) -> int:
        """The plateau batch; the eager model stands in for a compiled one, which would compile for every size."""
        self.findings.say("batch search")
        kind = self.accelerator.kind
        bounds = Bounds(
            largest_batch=_LARGEST_BATCH[kind],
            free_bytes=self.accelerator.free_bytes(),
            numel_per_image=self.subject.largest_numel(),
            call_seconds=_LONGEST_CALL_SECONDS,
        )
        plateau = search(self._first_from_latency, bounds)
        self.findings.notes["batch_search"] = {
            "trials": [[t.batch, t.outcome, t.images_per_second, t.bytes_peak] for t in plateau.trials],
            "stopped_by": plateau.stopped_by,
            "memory_intercept_bytes": plateau.memory_intercept,
            "memory_slope_bytes_per_image": plateau.memory_slope,
        }
        return plateau.batch

    def _first_from_latency(self, size: int) -> Trial:
        """A trial; batch 1 of an eager model has been timed and its peak taken already."""
        if size > 1 or self.configuration.compile != "none":
            return self._try(size)
        milliseconds = self.findings.metrics["latency_eager"].median
        peak = int(self.findings.metrics["memory_allocated"].median)
        return Trial(1, "ok", 1e3 / milliseconds, peak)

    def _try(self, size: int, *, measure_peak: bool = True) -> Trial:
        """A measurement just long enough to rank batches, or that memory ran out."""
        rule = replace(
            self.options.rule,
            max_seconds=min(0.5, self.options.rule.max_seconds),
            warmup_cap=0.25,
            least_calls=5,
            least_seconds=0.2,
            least_at_cap=1,  # of a call longer than the cap
        )
        trial = None
        try:
            peak = None
            if measure_peak:  # with one input of this batch, as at batch 1
                call = self.subject.caller(size, 1, eager=True)
                peak = self.accelerator.peaks(lambda: call(0)).allocated
            samples = measure(self.subject.caller(size, eager=True), self.accelerator.stopwatch(), rule)
            trial = Trial(size, "ok", size / median(samples.seconds), peak)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the except block: the error holds the frames, and they the tensors that must go first.
        self.accelerator.release()
        return trial or Trial(size, "oom")

    def measure_throughput(self) -> None:
        """Back-to-back calls at the batch that was chosen, with new samples."""
        size = self.findings.batch or 1
        self.findings.say(f"throughput at batch {size}")
        samples = self._timed(self.subject.caller(size), "throughput")
        self.findings.add("throughput", "images/s", [size / each for each in samples.seconds], noisy=samples.noisy)

    def _timed(self, call: Call, name: str) -> Samples:
        """Samples by the full rule; on CUDA under watched clocks, with cuDNN free to choose by trial."""
        stopwatch = self.accelerator.stopwatch()
        with self.accelerator.tuned():
            if self.accelerator.gpu is None:
                return measure(call, stopwatch, self.options.rule)
            result = watched(lambda: measure(call, stopwatch, self.options.rule), self.accelerator.gpu)
        self.findings.notes[f"clocks_{name}"] = {**result.trace, "num_retries": result.num_retries}
        self.findings.notes["throttled"] = bool(self.findings.notes.get("throttled")) or result.throttled
        return result.value

    def measure_energy(self) -> None:
        """Joules per image at the plateau, on CUDA with an energy counter."""
        gpu = self.accelerator.gpu
        if gpu is None or not self.options.energy_seconds:
            return
        self.findings.say("energy")
        size = self.findings.batch or 1
        call_seconds = size / self.findings.metrics["throughput"].median
        load = Load(self.subject.caller(size), self.accelerator.synchronize, size, call_seconds)
        with self.accelerator.tuned():
            found = measure_energy(load, gpu.energy_millijoules, window_seconds=self.options.energy_seconds)
        if found is None:
            self.findings.notes["energy"] = "the energy counter is missing or stands still"
            return
        for name, readings in (("energy", found.gross), ("energy_above_idle", found.net)):
            self.findings.add(name, "J/image", readings)
        self.findings.notes["idle_watts"] = found.idle_watts

    def list_kernels(self) -> None:
        """One profiled call: the attention kernels that ran. Afterwards nothing is timed in this process."""
        self.findings.say("kernels")
        call = self.subject.caller(1, 1)
        on_cuda = self.accelerator.kind == "cuda"
        self.findings.notes["attention_kernels"] = attention_kernels(lambda: call(0), cuda=on_cuda)
        if isinstance(self.accelerator, Cuda) and self.accelerator.gpu is not None:
            num_others = self.accelerator.other_processes()
            self.findings.notes |= {"other_processes": num_others, "shared": num_others > 0}
