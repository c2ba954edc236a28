"""What is kept of a training run and of an evaluation. Plain values, no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from luma_cli.store.records import Environment

RunStatus = Literal["running", "finished", "stopped", "diverged", "failed"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A training run. `config` is `RunConfig.to_json()`, of which the plain fields repeat what people filter by.

    run_id: unique over machines, e.g. `20261121-153012-vit_b.dinov3-ade20k-3fa2`. folder: where its checkpoints are.
    dataset: identity of the training data, `ade20k` for the official files, else with a part of their fingerprint.
    recipe: its name, with `+` when a setting was changed. facts: parameters, micro-batch, world size, BatchNorm policy,
    memory, what the backbone's weights were (source, SHA-256, conversions), command line, ...
    """

    run_id: str
    folder: str
    config: dict[str, Any]
    environment: Environment
    backbone: str
    timm_name: str
    pretraining: str
    weights: str
    resolution: int
    head: str
    dataset: str
    recipe: str
    seed: int
    num_steps: int
    batch: int
    num_processes: int = 1
    status: RunStatus = "running"
    reason: str = ""
    step: int = 0
    seconds: float = 0.0
    started_at: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class of an evaluation. Pixels are counted over the whole split; iou_percent is None for an absent class."""

    name: str
    true_positive: int
    false_positive: int
    false_negative: int
    iou_percent: float | None
    accuracy_percent: float | None
    boundary_iou_percent: float | None = None


@dataclass(frozen=True, slots=True)
class ImageScore:
    """One image of an evaluation: mIoU over the classes present in it, its pixel accuracy, its windows."""

    name: str
    height: int
    width: int
    num_windows: int
    miou_percent: float | None
    accuracy_percent: float | None


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """What a model scored on a split, and under which protocol.

    run_id: empty for a checkpoint without a run. step: of the checkpoint. data: as in RunRecord.dataset. protocol:
    everything that moves the number (window, resize, tta, absent, dtype). num_present: classes present in ground truth
    or prediction, over which mIoU is the mean; macc_percent is over those in the ground truth. macs_per_image:
    multiply-adds of the average image, windows included.
    """

    run_id: str
    checkpoint_sha256: str
    step: int
    data: str
    split: str
    resolution: int
    protocol: dict[str, Any]
    num_images: int
    num_skipped: int
    num_windows: int
    num_classes: int
    num_present: int
    miou_percent: float | None
    macc_percent: float | None
    aacc_percent: float | None
    boundary_miou_percent: float | None
    windows_per_image: float
    macs_per_image: float | None
    seconds: float
    evaluated_at: str = ""
    classes: tuple[ClassScore, ...] = ()
    images: tuple[ImageScore, ...] = ()
