"""What is kept of a measurement: its configuration, its environment, its numbers. Plain values, no torch.

Identity and provenance are two things. Identity (configuration, device model, library versions, driver, power limit)
decides what is already measured and what may be compared; provenance (GPU UUID, host, revision, time) is only stored.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from luma_cli.catalogue.heads import HeadConfig

Status = Literal["ok", "oom", "crashed", "timeout", "not_applicable", "failed"]
TROUBLE: frozenset[str] = frozenset({"crashed", "timeout", "failed"})


@dataclass(frozen=True, slots=True)
class Configuration:
    """One point of a sweep: everything the user chose that can move a number.

    batch: 0 means `auto`, the plateau batch is searched. resolution: side of the square input in pixels.
    backbone_hash: SHA-256 of the file or module behind `--import`, empty otherwise.
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

    def identity(self) -> dict[str, Any]:
        """The fields that decide whether two rows measured the same thing; the user's tag and aliases do not."""
        values = asdict(self)
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

    facts: what counting found, keys as in the JSON schema (macs, params, backbone_params, head_params, ffn, tap,
    width, stride, flops_complete, ...) . metrics: by name, e.g. `throughput` (images/s at `batch`), `latency_eager`,
    `latency_cuda_graph` (ms at batch 1), `memory_allocated`, `memory_reserved`, `memory_device` (bytes at batch 1),
    `memory_*_plateau`, `energy` (J per image).
    notes: everything else worth keeping (attention kernels that ran, redirected calls, compile seconds, batch ladder,
    throttling, first call seconds, channels_last kept, memory intercept and slope, NVML trace summary, and `weights`
    of a file: source, sha256, conversions, normalisation).
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
