"""What a sweep is asked for: its configurations, and how they are to be measured. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import UsageError
from luma_cli.measure.choices import check
from luma_cli.store.records import Configuration

Isolation = Literal["config", "backbone", "none"]
Again = Literal["all", "failed"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to measure, as opposed to what. Times in seconds, per configuration.

    again: None measures what was never tried, crashed, timed out or failed; `failed` also what ran out of memory; `all`
    everything.
    energy_seconds: window of the energy counter on CUDA, 0 for none.
    """

    device: str = "cpu"
    isolation: Isolation = "config"
    again: Again | None = None
    timeout_seconds: float = 900.0
    max_seconds: float = 10.0
    imports: tuple[str, ...] = ()
    energy_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.timeout_seconds > 0:
            raise UsageError(f"--timeout is {self.timeout_seconds:g}, expected seconds greater than 0")
        if not self.max_seconds > 0:
            raise UsageError(f"--max-seconds is {self.max_seconds:g}, expected seconds greater than 0")
        if self.isolation not in ("config", "backbone", "none"):
            raise UsageError(f"--isolation {self.isolation} is unknown, expected config, backbone or none")


def plan(
    specs: Sequence[BackboneSpec],
    resolutions: Sequence[int],
    template: Configuration,
) -> list[Configuration]:
    """Every spec at every resolution; all other fields are the template's, whose device loses its number.

    Raises UsageError for a choice that does not exist.
    """
    check(template)
    named = [
        replace(template, backbone=s.name, timm_name=s.timm_name, family=s.family, pretraining=s.pretraining)
        for s in specs
    ]
    kind = template.device.partition(":")[0]
    return [replace(c, resolution=resolution, device=kind) for c in named for resolution in resolutions]


def template(head: HeadConfig | None = None, **fields: Any) -> Configuration:
    """A configuration of no backbone yet, to be handed to `plan`."""
    return Configuration(backbone="", timm_name="", resolution=1, head=head or HeadConfig(), **fields)
