"""What a training will take, from a few real steps that count for nothing: memory, time and energy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch

from luma_cli.evaluate.inference import predict_labels
from luma_cli.measure import devices
from luma_cli.measure.nvml import NvmlMissing, load_nvml
from luma_cli.train.rehearsal import rehearsal

_WARM_UP_STEPS, _STEPS, _MOST_SECONDS = 2, 10, 60.0
_VAL_IMAGES = 4
_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Estimate:
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
