"""Search for the plateau: the smallest batch whose throughput is within 2% of the best. Imports no torch.

Memory is taken as m0 + m1 * batch, fitted to the first two batches, so that the search stops before memory does. What
is found is measured again with new samples: the best of noisy candidates is biased upward.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from luma_cli.errors import MeasureError

# 32-bit indices: a tensor with more elements leaves torch's fast kernels ("canUse32BitIndexMath").
LARGEST_NUMEL = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Trial:
    """What one batch gave. `oom` trials have no rate; `bytes_peak` is None where it was not measured."""

    batch: int
    outcome: Literal["ok", "oom"]
    images_per_second: float = 0.0
    bytes_peak: int | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where the search stops: batch, memory in bytes, elements per image of the largest tensor, seconds per call."""

    largest_batch: int = 1024
    free_bytes: int | None = None
    memory_share: float = 0.85
    numel_per_image: int = 1
    call_seconds: float = 5.0
    tolerance: float = 0.02


@dataclass(frozen=True, slots=True)
class Plateau:
    """The chosen batch, all trials, the memory fit (bytes at batch 0, bytes per image), what ended the search."""

    batch: int
    trials: tuple[Trial, ...]
    stopped_by: str
    memory_intercept: float | None = None
    memory_slope: float | None = None
    bounds: Bounds = field(default_factory=Bounds)


def search(try_batch: Callable[[int], Trial], bounds: Bounds) -> Plateau:
    """Double the batch while it pays; after running out of memory try once between the last two.

    `try_batch` must return an `oom` trial, not raise, when memory runs out. Raises MeasureError when batch 1 does.
    """
    trials: list[Trial] = []
    batch, stopped_by = 1, ""
    while not stopped_by:
        trials.append(try_batch(batch))
        if trials[-1].outcome == "oom":
            trials += _back_off(trials, try_batch)
            stopped_by = "out of memory"
        else:
            batch *= 2
            stopped_by = _reason_to_stop(trials, batch, bounds)
    intercept, slope = memory_fit(trials)
    return Plateau(smallest_near_best(trials, bounds.tolerance), tuple(trials), stopped_by, intercept, slope, bounds)


def _back_off(trials: list[Trial], try_batch: Callable[[int], Trial]) -> list[Trial]:
    """One trial between the last batch that fitted and the one that did not, a multiple of 8 where there is one."""
    if len(trials) < 2:
        raise MeasureError("out of memory at batch 1; try a lower --res or --dtype bfloat16")
    fitted = trials[-2].batch
    between = fitted * 3 // 2
    between -= between % 8 if between >= 16 else 0
    return [try_batch(between)] if between > fitted else []


def _reason_to_stop(trials: list[Trial], batch: int, bounds: Bounds) -> str:
    """Why `batch` is not worth or not safe to try; empty when it is."""
    last = trials[-1]
    if batch > bounds.largest_batch:
        return f"batch limit {bounds.largest_batch}"
    if batch * bounds.numel_per_image > LARGEST_NUMEL:
        return "a tensor would pass 2^31 elements"
    intercept, slope = memory_fit(trials)
    needed = 0.0 if intercept is None or slope is None else intercept + slope * batch
    if bounds.free_bytes is not None and needed > bounds.memory_share * bounds.free_bytes:
        return "memory"
    if batch / last.images_per_second > bounds.call_seconds:
        return f"a call would take more than {bounds.call_seconds:g} s"
    best_before = max((trial.images_per_second for trial in trials[:-2]), default=0.0)
    paid = max(trial.images_per_second for trial in trials[-2:]) > best_before * (1 + bounds.tolerance)
    # Two doublings in a row without gain: one alone may be an unlucky tile size.
    return "" if paid or len(trials) < 3 else "no gain from two doublings"


def memory_fit(trials: list[Trial]) -> tuple[float | None, float | None]:
    """Bytes at batch 0 and bytes per image, least squares over the batches whose peak is known."""
    known = [(t.batch, t.bytes_peak) for t in trials if t.bytes_peak is not None]
    if len(known) < 2:
        return None, None
    mean_batch = sum(b for b, _ in known) / len(known)
    mean_bytes = sum(m for _, m in known) / len(known)
    slope = sum((b - mean_batch) * (m - mean_bytes) for b, m in known) / sum((b - mean_batch) ** 2 for b, _ in known)
    return mean_bytes - slope * mean_batch, slope


def smallest_near_best(trials: list[Trial], tolerance: float) -> int:
    """The smallest batch within `tolerance` of the best rate."""
    fitted = [trial for trial in trials if trial.outcome == "ok"]
    best = max(trial.images_per_second for trial in fitted)
    return min(trial.batch for trial in fitted if trial.images_per_second >= best * (1 - tolerance))
