"""Measures one configuration from building to the last number, inside a worker process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import LumaError, MeasureError
from luma_cli.head import segmenter as segmenters
from luma_cli.measure import attention
from luma_cli.measure.accelerator import Cpu, Cuda, Peaks, capture
from luma_cli.measure.cost import spec_of
from luma_cli.measure.devices import is_out_of_memory, torch_provenance
from luma_cli.measure.nvml import measure_energy, watched
from luma_cli.measure.runner import Options, Result
from luma_cli.measure.timing import Bounds, Call, Timing, Trial, measure, median, search
from luma_cli.store.records import Configuration, Status

NUM_INPUTS = 3  # constant inputs run up to 13% faster than random ones (measured on an H200)
PLAIN_CONVOLUTIONS = 4  # a patch embedding and a neck; more make a convolutional model
# One image per step breaks BatchNorm where a layer sees a single pixel.
LEAST_TRAINING_BATCH = 2
LOSS = "mean square of all outputs, AdamW, all parameters trained"
_GRAPHED = ("reduce-overhead", "max-autotune")  # compile modes that use CUDA graphs of their own
_LARGEST_BATCH = {"cpu": 64, "cuda": 1024}
_LONGEST_CALL_SECONDS = 2.0
_LAYOUT_TRIAL_BATCH = {"cpu": 1, "cuda": 16}

Say = Callable[[str], None]


class NotApplicable(Exception):
    """The configuration makes no sense for this backbone."""


def attempt(configuration: Configuration, options: Options, say: Say) -> Result:
    """The result of measuring `configuration`, after an error what was found before; `say` receives each step."""
    start = time.perf_counter()
    result = Result("ok")
    try:
        _measure(configuration, options, result, say)
    except Exception as error:  # a failed measurement is a result too
        result.status, result.reason = _verdict(error)
    result.seconds = time.perf_counter() - start
    return result


def _verdict(error: Exception) -> tuple[Status, str]:
    if isinstance(error, NotApplicable):
        return "not_applicable", str(error)
    if isinstance(error, LumaError):
        return "failed", str(error)
    first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if is_out_of_memory(error):
        return "oom", first_line
    return "failed", f"{type(error).__name__}: {first_line}"


def _measure(configuration: Configuration, options: Options, result: Result, say: Say) -> None:
    accelerator = Cpu() if configuration.device == "cpu" else Cuda(options.uuid)
    result.provenance |= torch_provenance(accelerator.torch_device)
    say("building")
    result.notes["fused_attention_level"] = attention.set_fused(configuration.attention)
    subject = MeasuredPart(configuration, accelerator.torch_device)
    result.facts["ffn"] = subject.ffn
    if configuration.weights != "random":
        result.notes["weights"] = subject.weights
    package = None
    if configuration.attention == "flash-attn":
        try:
            package = attention.FlashAttn(attention.load_kernel())
        except LumaError as error:
            raise NotApplicable(str(error)) from error
    with torch.inference_mode(), package or contextlib.nullcontext():
        say("first call")
        _first_call(configuration, subject, accelerator, result)
        if package is not None and package.num_redirected == 0:
            raise NotApplicable(f"flash-attn supports none of the {result.notes['sdpa_calls']} attention calls")
        with attention.forced(configuration.attention):
            MeasurementSteps(configuration, options, subject, accelerator, result, say).run()
    if package is not None:
        result.notes["flash_attn_calls"] = {"redirected": package.num_redirected, "passed": package.num_passed}
    if configuration.train_memory:
        del subject  # its memory must be free before training is measured
        say("training memory")
        measure_training_memory(configuration, accelerator, result)


def _first_call(configuration: Configuration, subject: MeasuredPart, accelerator: Cpu, result: Result) -> None:
    """Time the cold call, count its attention calls, and raise NotApplicable when the backend cannot run them all."""
    seen: list[str] = []
    refused: list[str] = []

    def look(call: attention.Attend) -> None:
        seen.append(call.describe())
        if not refused and (why := attention.refusal(call, configuration.attention)):
            refused.append(f"{call.describe()}: {why}")

    call = subject.caller(1, 1)
    start = time.perf_counter()
    with attention.AttentionWatch(look):
        output = call(0)
    accelerator.synchronize()
    result.notes |= {"first_call_seconds": time.perf_counter() - start, "sdpa_calls": len(seen)}
    if not all(part.isfinite().all() for part in (output if isinstance(output, tuple) else (output,))):
        other = "float32" if configuration.dtype == "bfloat16" else "bfloat16 or float32"
        remedy = "check the weights" if configuration.dtype == "float32" else f"try --dtype {other}"
        raise MeasureError(f"its output has NaN or infinite values in {configuration.dtype}; {remedy}")
    if configuration.attention not in ("auto", "unfused") and configuration.part != "head":
        # The backbone alone: the head's own call would hide that its blocks never use the backend.
        in_backbone: list[attention.Attend] = []
        with attention.AttentionWatch(in_backbone.append):
            subject.run_backbone()
        result.notes["sdpa_calls_backbone"] = len(in_backbone)
        if not in_backbone:
            raise NotApplicable(f"{configuration.backbone} never calls scaled dot product attention")
    if refused:
        raise NotApplicable(f"attention {configuration.attention} cannot run {refused[0]}")


def measure_training_memory(configuration: Configuration, accelerator: Cpu, result: Result) -> None:
    """Add the peak memory, in bytes, of the second of two training steps, when the optimiser has its state.

    A fresh model and a surrogate loss: a lower bound for every recipe with this batch and AdamW.
    """
    accelerator.release()
    subject = MeasuredPart(configuration, accelerator.torch_device)
    batch = max(LEAST_TRAINING_BATCH, configuration.batch)
    inputs = subject.inputs(batch, 1)[0]
    module = subject.module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-6)
    # training EoMT supervises more predictions than inference makes, all under masked attention
    predicts_often = configuration.part == "all" and configuration.head.name == "eomt"
    supervised = subject.segmenter.predictions if predicts_often else module

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        surrogate_loss(supervised(inputs)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    step()
    add_peaks(result, accelerator.peaks(step), "_training")
    result.notes["training_memory"] = {"batch": batch, "loss": LOSS}


def surrogate_loss(output: Any) -> Tensor:
    """Mean square of every tensor of the output, summed: it needs all activations and no labels."""
    if isinstance(output, tuple):
        return torch.stack([surrogate_loss(part) for part in output]).sum()
    mean: Tensor = output.float().square().mean()
    return mean


def add_peaks(result: Result, peaks: Peaks, suffix: str = "") -> None:
    """Add the memory metrics that are known, in bytes."""
    for column in ("allocated", "reserved", "device"):
        if (value := getattr(peaks, column)) is not None:
            result.add(f"memory_{column}{suffix}", "bytes", [float(value)])
    result.notes["memory_method"] = peaks.method


@dataclass(frozen=True, slots=True)
class MeasurementSteps:
    """Measures one subject, inside inference mode and the chosen attention. `say` receives each step's name."""

    configuration: Configuration
    options: Options
    subject: MeasuredPart
    accelerator: Cpu
    result: Result
    say: Say

    def run(self) -> None:
        """All steps. Memory comes before whatever could leave memory behind."""
        self._choose_layout()
        self._compile()
        self._measure_memory(1)
        self.say("latency")
        self._time_latency("latency_eager", self.subject.caller(1))
        self.measure_graph_latency()
        self.result.batch = size = self.configuration.batch or self._search_batch()
        self._measure_plateau_memory(size)
        self._measure_throughput(size)
        self._measure_energy(size)
        self._list_kernels()

    def _choose_layout(self) -> None:
        """Channels last as asked; `auto` tries both on convolutional models and keeps the faster."""
        asked = self.configuration.channels_last
        if asked == "auto" and self.subject.is_convolutional:
            self.say("memory layout")
            seconds = {layout: self._layout_seconds(layout) for layout in ("off", "on")}
            self.result.notes["layout_seconds"] = seconds
            asked = "on" if seconds["on"] < seconds["off"] else "off"
        self.subject.set_layout(asked)
        self.result.notes["channels_last"] = asked == "on"

    def _layout_seconds(self, layout: str) -> float:
        """Median seconds per call in one layout, at batch 1 when memory is short."""
        self.subject.set_layout(layout)
        trial = self._try(_LAYOUT_TRIAL_BATCH[self.accelerator.kind], measure_peak=False)
        if trial.outcome == "oom":
            trial = self._try(1, measure_peak=False)
        return trial.batch / trial.images_per_second if trial.images_per_second else float("inf")

    def _compile(self) -> None:
        """Compile, once per process and static shape; the seconds are of the first compiled call."""
        if self.configuration.compile == "none":
            return
        self.say("compiling")
        self.subject.compile(self.configuration.compile)
        call = self.subject.caller(1, 1)
        start = time.perf_counter()
        call(0)
        self.accelerator.synchronize()
        self.result.notes["compile_seconds"] = time.perf_counter() - start

    def _measure_memory(self, size: int, suffix: str = "") -> None:
        """Peaks at this batch with one input; cuDNN's benchmark, which can triple them, stays off."""
        self.say(f"memory at batch {size}")
        call = self.subject.caller(size, 1)
        call(0)
        self.accelerator.synchronize()
        add_peaks(self.result, self.accelerator.peaks(lambda: call(0)), suffix)

    def _measure_plateau_memory(self, size: int) -> None:
        """Peaks at the chosen batch, before timing lets cuDNN choose kernels with larger workspaces."""
        if size > 1:
            self._measure_memory(size, "_plateau")
            return
        known = {name: metric for name, metric in self.result.metrics.items() if name.startswith("memory_")}
        for name, metric in known.items():
            self.result.metrics[f"{name}_plateau"] = replace(metric, name=f"{name}_plateau")

    def _time_latency(self, name: str, call: Call) -> None:
        """Single calls at batch 1, in ms."""
        timing = self._timed(call, name)
        self.result.add(name, "ms", [1e3 * each for each in timing.seconds], tail=True, noisy=timing.noisy)

    def measure_graph_latency(self) -> None:
        """Latency at batch 1 under a CUDA graph, or a note why there is none."""
        if self.accelerator.kind != "cuda":
            return
        if self.configuration.compile in _GRAPHED:
            self.result.notes["cuda_graph"] = f"compile {self.configuration.compile} uses its own CUDA graphs"
            return
        self.say("latency under a CUDA graph")
        try:
            with self.accelerator.tuned():  # the kernels of the eager latency, so that only launches differ
                replay = capture(self.subject.module, self.subject.inputs(1))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self.result.notes["cuda_graph"] = f"capture failed: {str(error).splitlines()[0]}"
            return
        self._time_latency("latency_cuda_graph", replay)

    def _search_batch(self) -> int:
        """The plateau batch of the eager model: a compiled one would compile anew for every size."""
        self.say("batch search")
        bounds = Bounds(
            largest_batch=_LARGEST_BATCH[self.accelerator.kind],
            free_bytes=self.accelerator.free_bytes(),
            numel_per_image=self.subject.largest_numel(),
            call_seconds=_LONGEST_CALL_SECONDS,
        )
        plateau = search(self._first_from_latency, bounds)
        self.result.notes["batch_search"] = {
            "trials": [[t.batch, t.outcome, t.images_per_second, t.bytes_peak] for t in plateau.trials],
            "stopped_by": plateau.stopped_by,
            "memory_intercept_bytes": plateau.memory_intercept,
            "memory_slope_bytes_per_image": plateau.memory_slope,
        }
        return plateau.batch

    def _first_from_latency(self, size: int) -> Trial:
        """A trial; at batch 1 the eager model's latency and peak are known already."""
        if size > 1 or self.configuration.compile != "none":
            return self._try(size)
        metrics = self.result.metrics
        return Trial(1, "ok", 1e3 / metrics["latency_eager"].median, int(metrics["memory_allocated"].median))

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
            timing = measure(self.subject.caller(size, eager=True), self.accelerator.stopwatch(), rule)
            trial = Trial(size, "ok", size / median(timing.seconds), peak)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out of the except block: the error holds the frames, and they the tensors that must go first.
        self.accelerator.release()
        return trial or Trial(size, "oom")

    def _measure_throughput(self, size: int) -> None:
        """Back-to-back calls at the chosen batch, with new samples."""
        self.say(f"throughput at batch {size}")
        timing = self._timed(self.subject.caller(size), "throughput")
        self.result.add("throughput", "images/s", [size / each for each in timing.seconds], noisy=timing.noisy)

    def _timed(self, call: Call, name: str) -> Timing:
        """Samples by the full rule; on CUDA with the clocks recorded, and cuDNN free to choose by trial."""
        stopwatch = self.accelerator.stopwatch()
        with self.accelerator.tuned():
            if self.accelerator.gpu is None:
                return measure(call, stopwatch, self.options.rule)
            found = watched(lambda: measure(call, stopwatch, self.options.rule), self.accelerator.gpu)
        self.result.notes[f"clocks_{name}"] = {**found.trace, "num_retries": found.num_retries}
        self.result.notes["throttled"] = bool(self.result.notes.get("throttled")) or found.throttled
        return found.value

    def _measure_energy(self, size: int) -> None:
        """Joules per image at the chosen batch, on CUDA with an energy counter."""
        gpu = self.accelerator.gpu
        if gpu is None and self.accelerator.kind == "cuda":
            self.result.notes["energy"] = "not measured: NVML, which counts it, is missing"
        if gpu is None or not self.options.energy_seconds:
            return
        self.say("energy")
        with self.accelerator.tuned():
            found = measure_energy(
                self.subject.caller(size),
                self.accelerator.synchronize,
                gpu.energy_millijoules,
                batch=size,
                call_seconds=size / self.result.metrics["throughput"].median,
                window_seconds=self.options.energy_seconds,
            )
        if found is None:
            self.result.notes["energy"] = "the energy counter is missing or does not move"
            return
        self.result.add("energy", "J/image", found.gross)
        self.result.add("energy_above_idle", "J/image", found.net)
        self.result.notes["idle_watts"] = found.idle_watts

    def _list_kernels(self) -> None:
        """The attention kernels of one profiled call. Last, as nothing is timed well after the profiler ran."""
        self.say("kernels")
        call = self.subject.caller(1, 1)
        found = attention.attention_kernels(lambda: call(0), cuda=self.accelerator.kind == "cuda")
        self.result.notes["attention_kernels"] = found
        if isinstance(self.accelerator, Cuda) and self.accelerator.gpu is not None:
            num_others = self.accelerator.other_processes()
            self.result.notes |= {"other_processes": num_others, "shared": num_others > 0}


class Decoder(nn.Module):
    """The head alone as a module, so that it can be compiled."""

    def __init__(self, segmenter: Any, resolution: int):
        super().__init__()
        self.segmenter = segmenter
        self._size = (resolution, resolution)

    def forward(self, features: Tensor) -> Any:
        """Features [B, D, h, w] -> prediction."""
        return self.segmenter.decode(features, self._size)


class MeasuredPart:
    """The part and its inputs. Calls run in whatever contexts the caller has entered."""

    def __init__(self, configuration: Configuration, device: torch.device):
        self._configuration = configuration
        self._device = device
        self._dtype: torch.dtype = getattr(torch, configuration.dtype)
        self.segmenter = segmenters.build(
            spec_of(configuration),
            configuration.resolution,
            head=HeadConfig(name="none") if configuration.part == "backbone" else configuration.head,
            weights=configuration.weights,
            device=device,
            dtype=self._dtype,
            seed=configuration.seed,
        ).eval()
        self.module: nn.Module = self.segmenter
        if configuration.part == "head":
            self.module = Decoder(self.segmenter, configuration.resolution)
        self._eager = self.module
        self._layout: torch.memory_format = torch.contiguous_format

    @property
    def is_convolutional(self) -> bool:
        """Whether the memory layout is worth trying."""
        convolutions = sum(isinstance(module, nn.Conv2d) for module in self.segmenter.backbone.modules())
        return convolutions > PLAIN_CONVOLUTIONS

    def set_layout(self, channels_last: str) -> None:
        """Put weights and later inputs into the memory layout; channels_last: `on` or else."""
        self._layout = torch.channels_last if channels_last == "on" else torch.contiguous_format
        with torch.inference_mode(False):  # weights moved in inference mode could never train again
            self.segmenter.to(memory_format=self._layout)

    @property
    def ffn(self) -> str:
        """Which feed-forward layers the queries use: reused, fresh, or none without a head."""
        return "none" if self.segmenter.head is None else str(self.segmenter.ffn)

    @property
    def weights(self) -> dict[str, Any]:
        """The loaded file, the changes that made it fit, and the mean and std that it expects of images."""
        loaded, normalisation = self.segmenter.backbone.weights, self.segmenter.backbone.normalisation
        return {
            "source": loaded.source,
            "sha256": loaded.sha256,
            "conversions": list(loaded.conversions),
            "normalisation": asdict(normalisation),
        }

    def run_backbone(self) -> None:
        """One call of the backbone alone."""
        self.segmenter.backbone(self._images(1, 0))

    def compile(self, mode: str) -> None:
        """Compile the part for static shapes."""
        self.module = torch.compile(self.module, mode=None if mode == "default" else mode, dynamic=False)  # type: ignore[assignment]

    def inputs(self, batch: int, count: int = NUM_INPUTS) -> list[Any]:
        """Seeded random inputs of exactly this batch: images, or what the head reads where it is the part."""
        images = [self._images(batch, index) for index in range(count)]
        if self._configuration.part != "head":
            return images
        return [self._laid_out(self.segmenter.read(image)) for image in images]

    def _laid_out(self, read: Any) -> Any:
        """What a head reads, detached; the map in the chosen memory layout."""
        if isinstance(read, Tensor):
            return read.detach().contiguous(memory_format=self._layout)
        return read._replace(features=self._laid_out(read.features), tokens=tuple(t.detach() for t in read.tokens))

    def _images(self, batch: int, index: int) -> Tensor:
        """Images [B, 3, R, R] of standard normal noise, made on the device in the final dtype."""
        generator = torch.Generator(self._device).manual_seed(self._configuration.seed * NUM_INPUTS + index)
        shape = (batch, 3, self._configuration.resolution, self._configuration.resolution)
        noise = torch.randn(shape, generator=generator, device=self._device, dtype=self._dtype)
        return noise.contiguous(memory_format=self._layout)

    def caller(self, batch: int, count: int = NUM_INPUTS, *, eager: bool = False) -> Callable[[int], Any]:
        """A call that rotates through `count` inputs of this batch; `eager` skips compilation."""
        inputs = self.inputs(batch, count)
        module = self._eager if eager else self.module
        return lambda number: module(inputs[number % len(inputs)])

    def largest_numel(self) -> int:
        """Elements per image of the largest tensor that goes into or out of a module."""
        largest = 3 * self._configuration.resolution**2

        def look(module: nn.Module, arguments: Any, output: Any) -> None:
            nonlocal largest
            for tensor in (*arguments, *(output if isinstance(output, (tuple, list)) else (output,))):
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())

        with contextlib.ExitStack() as hooks:
            for module in self.segmenter.modules():
                hooks.enter_context(module.register_forward_hook(look))
            self.caller(1, 1, eager=True)(0)
        return largest
