"""What a measurement has found so far: kept when a later step fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from luma_cli.measure.accelerator import Peaks
from luma_cli.measure.statistics import single, summarise
from luma_cli.measure.timing import Samples
from luma_cli.store.records import Metric


@dataclass(slots=True)
class Findings:
    """Metrics, notes and provenance, filled step by step; `say` reports the step to the sweep."""

    say: Callable[[str], None]
    batch: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def add_latency(self, name: str, samples: Samples) -> None:
        """Milliseconds per call, with the 90th percentile."""
        milliseconds = [seconds * 1e3 for seconds in samples.seconds]
        self.metrics[name] = summarise(name, "ms", milliseconds, tail=True, noisy=samples.noisy)

    def add_throughput(self, samples: Samples, batch: int) -> None:
        """Images per second, one sample per call of `batch` images."""
        rates = [batch / seconds for seconds in samples.seconds]
        self.metrics["throughput"] = summarise("throughput", "images/s", rates, noisy=samples.noisy)

    def add_peaks(self, peaks: Peaks, suffix: str = "") -> None:
        """The memory columns that are known, in bytes."""
        for column, value in (
            ("allocated", peaks.allocated),
            ("reserved", peaks.reserved),
            ("device", peaks.device),
        ):
            if value is not None:
                name = f"memory_{column}{suffix}"
                self.metrics[name] = single(name, "bytes", float(value))
        self.notes["memory_method"] = peaks.method

    def copy_peaks(self, suffix: str) -> None:
        """The memory columns at batch 1 once more, for another batch that is 1 as well."""
        for name in ("memory_allocated", "memory_reserved", "memory_device"):
            if name in self.metrics:
                self.metrics[name + suffix] = replace(self.metrics[name], name=name + suffix)

    def add_readings(self, name: str, unit: str, values: Sequence[float]) -> None:
        """A few readings of one quantity; their range is the interval."""
        self.metrics[name] = summarise(name, unit, values)
