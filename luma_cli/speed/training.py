"""GPU-hours of a training: from the user's own runs on the device, else from forward time and a ratio.

A step's time over that of a forward pass was measured for LUMA and EoMT (docs/heads_speed.md: 3.2 to 3.7 and 4.6 to
6.1, float32 on a CPU); on other devices and formats it is taken to be as sure as `_RATIO_SD` says. Without forward time
the answer is the work: three times the forward multiply-adds, two operations each, of every image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import exp, log, sqrt
from typing import TYPE_CHECKING

from luma_cli.catalogue.recipes import Recipe, load_recipe
from luma_cli.speed.quantity import Z80, Origin, Quantity, Workload
from luma_cli.speed.transfer import SHIPPED, LogNormal, Points, posterior

if TYPE_CHECKING:
    from luma_cli.speed.lineup import Lineup
    from luma_cli.store.records import RunRecord

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


def predict(
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
    measured = {_key(run.workload): run for run in runs}
    return [None if job is None else _or_measured(job, next(found), measured) for job in jobs]


def _key(workload: Workload) -> tuple[str, int, str, int]:
    return workload.architecture, workload.resolution, workload.head, workload.num_classes


def _or_measured(job: Job, said: Quantity, runs: Mapping[tuple[str, int, str, int], TrainedRun]) -> Quantity:
    """The job's own model as it was trained here, where it was: its rate is measured, its number of images is asked."""
    run = runs.get(_key(job.workload))
    if run is None:
        return said
    return _quantity(job, log(run.ms_per_image), _RUN_NOISE**2, "measured", "an own run of this very model")


def _hours(job: Job, said: LogNormal, index: int, note: str) -> Quantity:
    return _quantity(job, float(said.mean[index]), float(said.variance[index]), "predicted", note)


def _from_forward(job: Job | None, rate: Quantity | None) -> Quantity | None:
    if job is None or rate is None:
        return None
    ratio = _RATIOS.get(job.workload.head, _RATIOS["luma"])
    sd = log(rate.high / rate.low) / (2 * Z80)
    note = f"forward time here x {ratio:g}, a step's ratio measured on a CPU; no own training run on this device"
    return _quantity(job, log(1000 * ratio / rate.value), sd**2 + _RATIO_SD**2, "predicted", note, rate.extrapolated)


def _quantity(
    job: Job, log_ms: float, variance: float, origin: Origin, note: str, extrapolated: bool = False
) -> Quantity:
    value, factor = exp(log_ms) * job.num_images / _MS_PER_HOUR, exp(Z80 * sqrt(variance))
    return Quantity("gpu_hours", value, value / factor, value * factor, origin, extrapolated, note)
