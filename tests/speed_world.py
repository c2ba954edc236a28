"""A small made-up world of shipped speed: three devices of one class, one of another, networks of three families."""

from __future__ import annotations

from luma_cli.speed.quantity import Workload
from luma_cli.speed.reference import Classifier, HardwareSetting, ThroughputTable

SETTINGS = (
    HardwareSetting("GPU A", "amp", "nchw", "eager", "2.4"),
    HardwareSetting("GPU B", "amp", "nchw", "eager", "2.4"),
    HardwareSetting("GPU C", "amp", "nhwc", "eager", "2.9"),
    HardwareSetting("GPU A", "bf16", "nchw", "dynamo", "2.9"),
)
# Milliseconds per GMAC of each setting, and the factor of each family there.
LEVELS = (0.10, 0.05, 0.02, 0.04)
FACTORS = {"conv": (1.0, 1.1, 1.3, 0.7), "vit": (1.0, 0.9, 0.8, 0.9), "mixer": (1.5, 1.5, 1.5, 1.2)}


def table() -> ThroughputTable:
    """72 classifiers; the last family was not measured on GPU B."""
    rows = [_row(family, size, side) for family in FACTORS for size in range(8) for side in (224, 256, 384)]
    return ThroughputTable(SETTINGS, tuple(rows))


def _row(family: str, size: int, side: int) -> Classifier:
    gmacs = 1.5**size * (side / 224) ** 2
    times = [gmacs * level * factor for level, factor in zip(LEVELS, FACTORS[family], strict=True)]
    return Classifier(
        architecture=f"{family}_{size}",
        resolution=side,
        family=family,
        macs=gmacs * 1e9,
        activations=gmacs * {"conv": 2e6, "vit": 4e6, "mixer": 3e6}[family],
        milliseconds=tuple(None if family == "mixer" and i == 1 else each for i, each in enumerate(times)),
    )


def workload(
    architecture: str = "vit_3", resolution: int = 256, gmacs: float | None = None, **fields: object
) -> Workload:
    """A network of the world; `gmacs` of the segmenter, by default of the classifier alone."""
    size = int(architecture.rsplit("_", 1)[1])
    macs = 1.5**size * (resolution / 224) ** 2 if gmacs is None else gmacs
    values = {"macs": int(macs * 1e9), "params": 10_000_000, "activations": 20_000_000, **fields}
    return Workload(architecture, resolution, **values)  # type: ignore[arg-type]
