"""The steps of one measurement, in order, each leaving its numbers in the findings."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from luma_cli.measure.accelerator import Cpu, Cuda, Peaks, capture, is_out_of_memory
from luma_cli.measure.attention import attention_kernels
from luma_cli.measure.nvml import Load, measure_energy, watched
from luma_cli.measure.runner import Options
from luma_cli.measure.subject import Subject
from luma_cli.measure.timing import Bounds, Rule, Samples, Trial, measure, median, search, summarise
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

    def add_latency(self, name: str, samples: Samples) -> None:
        """Milliseconds per call, with the 90th percentile."""
        milliseconds = [seconds * 1e3 for seconds in samples.seconds]
        self.metrics[name] = summarise(name, "ms", milliseconds, tail=True, noisy=samples.noisy)

    def add_throughput(self, samples: Samples, batch: int) -> None:
        """Images per second, one sample per call of `batch` images."""
        rates = [batch / seconds for seconds in samples.seconds]
        self.metrics["throughput"] = summarise("throughput", "images/s", rates, noisy=samples.noisy)

    def add_peaks(self, peaks: Peaks, suffix: str = "") -> None:
        """The memory columns that are known, in bytes."""
        for column in ("allocated", "reserved", "device"):
            value = getattr(peaks, column)
            if value is not None:
                name = f"memory_{column}{suffix}"
                self.metrics[name] = summarise(name, "bytes", [float(value)])
        self.notes["memory_method"] = peaks.method


class Steps:
    """Measures one subject. Runs inside inference mode and the attention asked for."""

    def __init__(
        self,
        configuration: Configuration,
        options: Options,
        subject: Subject,
        accelerator: Cpu,
        findings: Findings,
    ):
        self._configuration = configuration
        self._rule = options.rule
        self._energy_seconds = options.energy_seconds
        self._subject = subject
        self._accelerator = accelerator
        self._findings = findings

    def run(self) -> None:
        """All steps."""
        self.choose_layout()
        self.compile()
        self.measure_memory(1)
        self.measure_latency()
        self.measure_graph_latency()
        self._findings.batch = self._configuration.batch or self.search_batch()
        self.measure_plateau_memory()
        self.measure_throughput()
        self.measure_energy()
        self.list_kernels()

    def choose_layout(self) -> None:
        """Channels last as asked; `auto` tries both on convolutional models and keeps the faster."""
        asked = self._configuration.channels_last
        if asked == "auto" and self._subject.is_convolutional:
            self._findings.say("memory layout")
            seconds = {layout: self._layout_seconds(layout) for layout in ("off", "on")}
            self._findings.notes["layout_seconds"] = seconds
            asked = "on" if seconds["on"] < seconds["off"] else "off"
        self._subject.set_layout(torch.channels_last if asked == "on" else torch.contiguous_format)
        self._findings.notes["channels_last"] = asked == "on"

    def _layout_seconds(self, layout: str) -> float:
        """Median seconds per call in one layout; falls back to batch 1 when memory is short."""
        self._subject.set_layout(torch.channels_last if layout == "on" else torch.contiguous_format)
        size = _LAYOUT_TRIAL_BATCH[self._accelerator.kind]
        trial = self._try(size, measure_peak=False)
        if trial.outcome == "oom":
            trial, size = self._try(1, measure_peak=False), 1
        return size / trial.images_per_second if trial.images_per_second else float("inf")

    def compile(self) -> None:
        """Compile, once per process and static shape; the seconds are of the first compiled call."""
        if self._configuration.compile == "none":
            return
        self._findings.say("compiling")
        self._subject.compile(self._configuration.compile)
        call = self._subject.caller(1, 1)
        start = time.perf_counter()
        call(0)
        self._accelerator.synchronize()
        self._findings.notes["compile_seconds"] = time.perf_counter() - start

    def measure_memory(self, size: int, suffix: str = "") -> None:
        """Peaks at this batch with one input of it; cuDNN's benchmark, which can triple them, stays off."""
        self._findings.say(f"memory at batch {size}")
        call = self._subject.caller(size, 1)
        call(0)
        self._accelerator.synchronize()
        self._findings.add_peaks(self._accelerator.peaks(lambda: call(0)), suffix)

    def measure_plateau_memory(self) -> None:
        """Peaks at the batch chosen, before its throughput lets cuDNN pick kernels with larger workspaces."""
        size = self._findings.batch or 1
        if size > 1:
            self.measure_memory(size, "_plateau")
            return
        metrics = self._findings.metrics  # at batch 1 it is the same call as before: its peaks are known
        for name in ("memory_allocated", "memory_reserved", "memory_device"):
            if name in metrics:
                metrics[f"{name}_plateau"] = replace(metrics[name], name=f"{name}_plateau")

    def measure_latency(self) -> None:
        """Single calls at batch 1."""
        self._findings.say("latency")
        samples = self._timed(self._subject.caller(1), "latency_eager")
        self._findings.add_latency("latency_eager", samples)

    def measure_graph_latency(self) -> None:
        """Single calls at batch 1 without launches, on CUDA; why there is none otherwise."""
        if self._accelerator.kind != "cuda":
            return
        if self._configuration.compile in _GRAPHED:
            self._findings.notes["cuda_graph"] = f"compile {self._configuration.compile} replays graphs of its own"
            return
        self._findings.say("latency under a CUDA graph")
        try:
            with self._accelerator.tuned():  # the kernels of the eager latency, so that only launches differ
                replay = capture(self._subject.module, self._subject.inputs(1))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._findings.notes["cuda_graph"] = f"capture failed: {str(error).splitlines()[0]}"
            return
        self._findings.add_latency("latency_cuda_graph", self._timed(replay, "latency_cuda_graph"))

    def search_batch(self) -> int:
        """The plateau batch; the eager model stands in for a compiled one, which would compile for every size."""
        self._findings.say("batch search")
        kind = self._accelerator.kind
        bounds = Bounds(
            largest_batch=_LARGEST_BATCH[kind],
            free_bytes=self._accelerator.free_bytes(),
            numel_per_image=self._subject.largest_numel(),
            call_seconds=_LONGEST_CALL_SECONDS,
        )
        plateau = search(self._first_from_latency, bounds)
        self._findings.notes["batch_search"] = {
            "trials": [[t.batch, t.outcome, t.images_per_second, t.bytes_peak] for t in plateau.trials],
            "stopped_by": plateau.stopped_by,
            "memory_intercept_bytes": plateau.memory_intercept,
            "memory_slope_bytes_per_image": plateau.memory_slope,
        }
        return plateau.batch

    def _first_from_latency(self, size: int) -> Trial:
        """A trial; batch 1 of an eager model has been timed and its peak taken already."""
        if size > 1 or self._configuration.compile != "none":
            return self._try(size)
        milliseconds = self._findings.metrics["latency_eager"].median
        peak = int(self._findings.metrics["memory_allocated"].median)
        return Trial(1, "ok", 1e3 / milliseconds, peak)

    def _try(self, size: int, *, measure_peak: bool = True) -> Trial:
        """A short measurement at this batch, or that memory ran out."""
        trial = None
        try:
            peak = self._peak_allocated(size) if measure_peak else None
            call = self._subject.caller(size, eager=True)
            samples = measure(call, self._accelerator.stopwatch(), self._trial_rule())
            trial = Trial(size, "ok", size / median(samples.seconds), peak)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the except block: the error holds the frames, and they the tensors that must go first.
        self._accelerator.release()
        return trial or Trial(size, "oom")

    def _peak_allocated(self, size: int) -> int:
        """Peak bytes in tensors with one input of this batch, as at batch 1."""
        call = self._subject.caller(size, 1, eager=True)
        return self._accelerator.peaks(lambda: call(0)).allocated

    def _trial_rule(self) -> Rule:
        """A rule that only has to rank batches: of a call longer than its cap one sample is enough."""
        seconds = min(0.5, self._rule.max_seconds)
        return replace(
            self._rule, max_seconds=seconds, warmup_cap=0.25, least_calls=5, least_seconds=0.2, least_at_cap=1
        )

    def measure_throughput(self) -> None:
        """Back-to-back calls at the batch that was chosen, with new samples."""
        size = self._findings.batch or 1
        self._findings.say(f"throughput at batch {size}")
        self._findings.add_throughput(self._timed(self._subject.caller(size), "throughput"), size)

    def _timed(self, call: Callable[[int], object], name: str) -> Samples:
        """Samples by the full rule; on CUDA under watched clocks, with cuDNN free to choose by trial."""
        stopwatch = self._accelerator.stopwatch()
        with self._accelerator.tuned():
            if self._accelerator.gpu is None:
                return measure(call, stopwatch, self._rule)
            result = watched(lambda: measure(call, stopwatch, self._rule), self._accelerator.gpu)
        self._findings.notes[f"clocks_{name}"] = {**result.trace, "num_retries": result.num_retries}
        self._findings.notes["throttled"] = bool(self._findings.notes.get("throttled")) or result.throttled
        return result.value

    def measure_energy(self) -> None:
        """Joules per image at the plateau, on CUDA with an energy counter."""
        gpu = self._accelerator.gpu
        if gpu is None or not self._energy_seconds:
            return
        self._findings.say("energy")
        size = self._findings.batch or 1
        call_seconds = size / self._findings.metrics["throughput"].median
        load = Load(self._subject.caller(size), self._accelerator.synchronize, size, call_seconds)
        with self._accelerator.tuned():
            found = measure_energy(load, gpu.energy_millijoules, window_seconds=self._energy_seconds)
        if found is None:
            self._findings.notes["energy"] = "the energy counter is missing or stands still"
            return
        for name, readings in (("energy", found.gross), ("energy_above_idle", found.net)):
            self._findings.metrics[name] = summarise(name, "J/image", readings)
        self._findings.notes["idle_watts"] = found.idle_watts

    def list_kernels(self) -> None:
        """One profiled call: the attention kernels that ran. Afterwards nothing is timed in this process."""
        self._findings.say("kernels")
        call = self._subject.caller(1, 1)
        self._findings.notes["attention_kernels"] = attention_kernels(
            lambda: call(0), cuda=self._accelerator.kind == "cuda"
        )
        if isinstance(self._accelerator, Cuda) and self._accelerator.gpu is not None:
            num_others = self._accelerator.other_processes()
            self._findings.notes |= {"other_processes": num_others, "shared": num_others > 0}
