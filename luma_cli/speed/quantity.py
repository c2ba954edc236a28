"""Costs of segmenters on a device, with their origin and interval, and the measured rows they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from luma_cli.store.profiles import Measured
from luma_cli.units import BudgetKind

if TYPE_CHECKING:
    from luma_cli.store.profiles import Measurement


# The central 80 % of a normal distribution are this many standard deviations to each side.
Z80 = 1.2815515655446004

Key = tuple[str, int, str, int]
Origin = Literal["exact", "measured", "shipped", "predicted"]


@dataclass(frozen=True, slots=True)
class Workload:
    """A segmenter to be timed. macs, activations, params: with the head, None when not known. resolution: pixels."""

    architecture: str
    resolution: int
    family: str = "unknown"
    macs: int | None = None
    activations: int | None = None
    params: int | None = None
    head: str = "luma"
    num_classes: int = 150

    @property
    def key(self) -> Key:
        """Identity of a segmenter under one set of conditions."""
        return self.architecture, self.resolution, self.head, self.num_classes


@dataclass(frozen=True, slots=True)
class Quantity:
    """A cost in the kind's own unit (`units.BudgetKind`) with its central 80 % interval.

    origin: `exact` (counted), `measured` (on this device), `shipped` (measured elsewhere on the same device model) or
    `predicted`. low, high: equal to value when exact. note: one line, e.g. why it is extrapolated.
    """

    kind: BudgetKind
    value: float
    low: float
    high: float
    origin: Origin
    extrapolated: bool = False
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields under their public names."""
        return {
            "value": self.value,
            "interval_80": [self.low, self.high],
            "source": self.origin,
            "extrapolated": self.extrapolated,
            "note": self.note or None,
        }


@dataclass(frozen=True, slots=True, order=True)
class Conditions:
    """What must be equal between two rows before their numbers are compared.

    environment: identity as JSON text (device model, library versions, driver, power limit).
    """

    device: str
    device_name: str
    dtype: str
    attention: str
    compile: str
    channels_last: str
    head: str
    num_queries: int
    num_classes: int
    l2: int
    tap: str
    ffn: str
    prefix: bool
    environment: str

    @property
    def label(self) -> str:
        """One line for captions, with the head's options that are not the default."""
        head = ["head", self.head]
        head += [f"{self.l2} blocks"] if self.l2 > 1 else []
        head += [f"tap {self.tap}"] if self.tap != "output" else []
        head += [f"ffn {self.ffn}"] if self.ffn != "auto" else []
        head += ["prefix tokens seen"] if self.prefix else []
        return (
            f"{self.device_name}, {self.dtype}, attention {self.attention}, compile {self.compile}, "
            f"channels-last {self.channels_last}, {' '.join(head)}, {self.num_classes} classes"
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """One profile of backbone plus head. Numbers that were not measured are None.

    latency_ms: median at batch 1. images_per_second: at the plateau batch, None for a batch fixed by hand.
    memory_bytes: peak at batch 1, by the device; by the allocator on a CPU. energy_joules: per image. flags: reasons
    for wrong numbers (`throttled`, `shared` with another process); such rows are ignored. own_module: from `--import`.
    """

    name: str
    timm_name: str
    resolution: int
    conditions: Conditions
    family: str = "unknown"
    pretraining: str = ""
    macs: int | None = None
    params: int | None = None
    latency_ms: float | None = None
    images_per_second: float | None = None
    memory_bytes: float | None = None
    energy_joules: float | None = None
    noisy: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    own_module: bool = False
    started_at: str = ""
    fingerprint: str = ""

    @property
    def architecture(self) -> str:
        """The timm name without its tag; hub and folder names stay whole."""
        return self.timm_name if ":" in self.timm_name else self.timm_name.split(".")[0]

    @property
    def key(self) -> Key:
        """As `Workload.key`; the user's own module goes by its own name."""
        name = self.name if self.own_module else self.architecture
        return name, self.resolution, self.conditions.head, self.conditions.num_classes

    @property
    def workload(self) -> Workload:
        """The segmenter that was measured."""
        head, num_classes = self.conditions.head, self.conditions.num_classes
        return Workload(
            self.architecture, self.resolution, self.family, self.macs, None, self.params, head, num_classes
        )


def from_measurements(rows: Iterable[Measurement]) -> list[Measured]:
    """The rows of the store as the advisor needs them."""
    conditions = cache(Conditions)  # 100,000 rows share a handful
    return [_measured(row, conditions) for row in rows]


def _measured(row: Measurement, conditions: Callable[..., Conditions]) -> Measured:
    noisy = {"latency": row.latency_noisy, "throughput": row.images_per_second_noisy, "energy": row.energy_noisy}
    flags = {"throttled": row.throttled, "shared": row.shared}
    memory = row.memory_device_bytes
    return Measured(
        name=row.backbone,
        timm_name=row.timm_name,
        resolution=row.resolution,
        conditions=conditions(
            row.device.split(":")[0],
            row.device_name or row.device,
            row.dtype,
            row.attention,
            row.compile,
            row.channels_last,
            row.head,
            row.queries,
            row.classes,
            row.l2,
            row.tap,
            row.ffn,
            bool(row.prefix),
            row.identity,
        ),
        family=row.family,
        pretraining=row.pretraining,
        macs=row.macs if row.macs_complete else None,
        params=row.params,
        latency_ms=row.latency_ms,
        images_per_second=row.images_per_second if row.batch_requested == 0 else None,
        memory_bytes=row.memory_allocated_bytes if memory is None and row.device.startswith("cpu") else memory,
        energy_joules=row.energy_joules,
        noisy=tuple(name for name, is_noisy in noisy.items() if is_noisy),
        flags=tuple(name for name, is_set in flags.items() if is_set),
        own_module=bool(row.own_module),
        started_at=row.started_at,
        fingerprint=row.fingerprint,
    )
