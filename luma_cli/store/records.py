"""Records of measurements, runs and evaluations as plain values, without torch.

Identity and provenance are separate. Identity (configuration, device model, library versions, driver, power limit)
decides what is already measured and what may be compared; provenance (GPU UUID, host, revision, time) is only stored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.spec import BackboneSpec

Status = Literal["ok", "oom", "crashed", "timeout", "not_applicable", "failed"]
TROUBLE: frozenset[str] = frozenset({"crashed", "timeout", "failed"})


@dataclass(frozen=True, slots=True)
class Configuration:
    """One point of a sweep: everything the user chose that can move a number.

    batch: 0 means `auto`, the plateau batch is searched. resolution: side of the square input in pixels. backbone_hash:
    SHA-256 of the file or module behind `--import`, empty otherwise. spec: the backbone as resolved when the sweep was
    planned; only for counting and building, never stored.
    """

    backbone: str
    timm_name: str
    resolution: int
    head: HeadConfig = field(default_factory=HeadConfig)
    family: str = "unknown"
    pretraining: str = ""
    weights: str = "random"
    seed: int = 0
    batch: int = 0
    dtype: str = "float32"
    attention: str = "auto"
    compile: str = "none"
    channels_last: str = "auto"
    device: str = "cpu"
    part: str = "all"
    train_memory: bool = False
    backbone_hash: str = ""
    tag: str = ""
    spec: BackboneSpec | None = field(default=None, compare=False, repr=False)

    def stored(self) -> dict[str, Any]:
        """All fields but the spec, as plain values."""
        values = asdict(self)
        del values["spec"]
        return values

    def identity(self) -> dict[str, Any]:
        """The fields that decide whether two rows measured the same thing; the user's tag and aliases do not."""
        values = self.stored()
        for label in ("backbone", "family", "pretraining", "tag"):
            values.pop(label)
        return {**values, "head": self.head.identity()}


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a measurement ran. `identity` decides comparability, `provenance` is only stored.

    identity: device_name, device kind, torch, timm, cuda, driver, power_limit_watts, num_threads (CPU only), ...
    provenance: gpu_uuid, host, git revision, time, VBIOS, clocks, environment variables, flags, ...
    """

    identity: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)


def fingerprint(configuration: Configuration, environment: Environment) -> str:
    """Hex SHA-256 of configuration and environment identity: the key under which a result is found again."""
    text = json.dumps(
        {"configuration": configuration.identity(), "environment": environment.identity},
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured quantity: median with its 95% interval from order statistics, and the raw samples behind it."""

    name: str
    unit: str
    median: float
    ci_low: float
    ci_high: float
    n: int
    p90: float | None = None
    noisy: bool = False
    samples: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """One finished attempt at a configuration. Numbers that were not measured are None.

    facts: found by counting, keys as in the JSON schema (macs, params, backbone_params, head_params, ffn, tap, width,
    stride, flops_complete, ...). metrics: by name, e.g. `throughput` (images/s at `batch`), `latency_eager`,
    `latency_cuda_graph` (ms at batch 1), `memory_allocated`, `memory_reserved`, `memory_device` (bytes at batch 1),
    `memory_*_plateau`, `energy` (J per image). notes: everything else (attention kernels that ran, redirected calls,
    compile seconds, batch ladder, throttling, first call seconds, channels_last kept, memory intercept and slope, NVML
    trace summary, and `weights` of a file: source, sha256, conversions, normalisation).
    """

    configuration: Configuration
    environment: Environment
    status: Status
    reason: str = ""
    batch: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    started_at: str = ""
    seconds: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Key of configuration and environment, see `fingerprint`."""
        return fingerprint(self.configuration, self.environment)


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
    multiply-adds of the average image, windows included. scores: by name, of an evaluation on unknown objects.
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
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def mean_of(self) -> str:
        """What to add to a mean over fewer classes than there are; empty for all of them and where there is no mean."""
        partial = self.miou_percent is not None and self.num_present < self.num_classes
        return f" (mean of {self.num_present} of {self.num_classes} classes)" if partial else ""
