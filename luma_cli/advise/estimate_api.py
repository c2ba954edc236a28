"""Estimates with the shipped tables, the user's own runs and measurements read from the store."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from luma_cli.accuracy.model import load_model
from luma_cli.advise.device import measured_rows
from luma_cli.advise.estimate import Asked, Estimate, estimates
from luma_cli.catalogue.costs import load_costs
from luma_cli.catalogue.heads import HeadName
from luma_cli.evidence.table import load_evidence
from luma_cli.speed.measured import Measured
from luma_cli.speed.model import SpeedModel


def estimate_all(
    asked: Sequence[Asked], *, device: str | None = None, database: Path | None = None
) -> tuple[list[Estimate], str]:
    """One estimate per row in order, and what LUMA's level stands on. Raises StoreError, UsageError."""
    model = load_model(load_evidence(database))
    rows = measured_rows(database, device)

    @cache
    def speed(head: HeadName) -> SpeedModel:
        return SpeedModel.load(rows, device, head=head)

    is_known = device is not None or _one_device(rows)
    return estimates(asked, model, load_costs(), speed if is_known else None), model.scale_note


def _one_device(rows: Sequence[Measured]) -> bool:
    return len({row.conditions.device_name for row in rows}) == 1
