"""What a training will take, from a few real steps that count for nothing: memory, time and energy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch

from luma_cli.errors import UsageError
from luma_cli.evaluate.inference import predict_labels
from luma_cli.measure import devices
from luma_cli.measure.nvml import NvmlMissing, load_nvml
from luma_cli.train.config import Given, Settings
from luma_cli.train.loop import Noted, OnEvent
from luma_cli.train.prepare import Run, find_device, make_ready, peak_bytes
from luma_cli.train.processes import joined, started

_WARM_UP_STEPS, _STEPS, _MOST_SECONDS = 2, 10, 60.0
_VAL_IMAGES = 4
_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class TrainingEstimate:
    """A training before it is started. Measured on this machine by `num_probed` steps, data loading included.

    step_seconds: median; step_seconds_low and high: the fastest and the slowest. train_seconds, validation_seconds: of
    the whole run. memory_bytes: peak of the probe. energy_kwh: of this process's GPU; None where nothing counts it.
    """

    backbone: str
    head: str
    resolution: int
    data: str
    recipe: str
    params: int
    params_trained: int
    macs_per_window: int | None
    num_steps: int
    num_validations: int
    batch: int
    passes: str
    batch_norm: str
    dtype: str
    device: str
    num_processes: int
    num_probed: int
    step_seconds: float
    step_seconds_low: float
    step_seconds_high: float
    train_seconds: float
    validation_seconds: float
    memory_bytes: int
    energy_kwh: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, schema 1."""
        return {"schema": 1, **asdict(self)}


def estimate_run(given: Given, settings: Settings, on_event: OnEvent) -> TrainingEstimate:
    """Make everything ready as for a run, take up to ten steps, and extrapolate; no file and no row is written.

    Raises what `train_run` raises before its first step.
    """
    if settings.resume:
        raise UsageError("--dry-run tells of a new run, and --resume names an old one; leave one of them out")
    processes = started()
    device = find_device(settings.device, processes)
    with joined(device, processes):
        run = make_ready(given, settings, device, processes, lambda text: on_event(Noted(text)))
        seconds, joules = _probe(run)
        return _estimate(run, seconds, joules, _validation_seconds(run))


def _probe(run: Run) -> tuple[list[float], float | None]:
    """Seconds of each timed step, its data included, and joules per step of this process's GPU."""
    last = min(run.num_steps, _WARM_UP_STEPS + _STEPS)
    meter = _meter(run.trainer.device)
    seconds: list[float] = []
    with closing(run.batches(last)) as batches:
        begun = time.perf_counter()
        before = meter()
        for number in range(last):
            if number == min(_WARM_UP_STEPS, last - 1):
                before = meter()
            start = time.perf_counter()
            run.trainer.step(next(batches))
            seconds.append(time.perf_counter() - start)
            if time.perf_counter() - begun > _MOST_SECONDS:
                break
    after = meter()
    timed = seconds[_WARM_UP_STEPS:] or seconds[-1:]
    joules = None if before is None or after is None else (after - before) / 1e3 / len(timed)
    return timed, joules


def _meter(device: torch.device) -> Callable[[], int | None]:
    """Reads the millijoules that the GPU of this process has used; None where nothing counts them."""
    if device.type != "cuda":
        return lambda: None
    try:
        nvml = load_nvml()
    except NvmlMissing:
        return lambda: None
    gpu = nvml.open(devices.find(f"cuda:{device.index}", nvml).uuid)

    def read() -> int | None:
        torch.cuda.synchronize(device)
        return gpu.energy_millijoules()

    return read


def _validation_seconds(run: Run) -> float:
    """Of one validation by all processes, from a few images of the split."""
    split, trainer = run.val, run.trainer
    indices = range(0, len(split), max(1, len(split) // _VAL_IMAGES))[:_VAL_IMAGES]
    dtype = trainer.autocast or torch.float32
    start = time.perf_counter()
    for index in indices:
        image = split.image(index)
        predict_labels(trainer.segmenter, image, run.config.resolution, dtype=dtype, batch=trainer.micro_batch)
    return (time.perf_counter() - start) / len(indices) * len(split) / trainer.processes.num


def _estimate(run: Run, seconds: list[float], joules: float | None, validation_seconds: float) -> TrainingEstimate:
    config, facts, trainer = run.config, run.facts, run.trainer
    step = statistics.median(seconds)
    num_validations = -(-run.num_steps // run.evaluation_steps)
    return TrainingEstimate(
        backbone=config.backbone,
        head=config.head.name,
        resolution=config.resolution,
        data=run.train.identity,
        recipe=run.recipe_name,
        params=facts["params"],
        params_trained=facts["params_trained"],
        macs_per_window=run.macs_per_window,
        num_steps=run.num_steps,
        num_validations=num_validations,
        batch=run.order.step_size,
        passes=facts["micro_batch"],
        batch_norm=facts["batch_norm"],
        dtype=facts["dtype"],
        device=devices.here(devices.find(trainer.device.type)).identity["device_name"],
        num_processes=trainer.processes.num,
        num_probed=len(seconds),
        step_seconds=step,
        step_seconds_low=min(seconds),
        step_seconds_high=max(seconds),
        train_seconds=step * run.num_steps,
        validation_seconds=validation_seconds * num_validations,
        memory_bytes=peak_bytes(trainer.device),
        energy_kwh=None if joules is None else joules * run.num_steps * trainer.processes.num / _JOULES_PER_KWH,
    )
