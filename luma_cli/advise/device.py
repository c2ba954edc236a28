"""What is known of time, memory, energy and training on the device that a question is about."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from luma_cli.advise import budgets as held
from luma_cli.advise.question import Question
from luma_cli.advise.set_apart import set_apart
from luma_cli.speed.measured import Measured, from_measurements
from luma_cli.speed.model import SpeedModel
from luma_cli.speed.training import TrainedRun, trained_runs
from luma_cli.store import database as files
from luma_cli.store.measurements import measurements
from luma_cli.store.runs import list_runs
from luma_cli.units import BudgetKind


def load_speed(question: Question, kinds: Sequence[BudgetKind], database: Path | None) -> tuple[SpeedModel, list[str]]:
    """The model of the device's speed from the store and from what ships, and what a reader must know about it.

    kinds: of the costs that are needed. Raises UsageError when several devices could be meant, StoreError.
    """
    measured = measured_rows(database)
    runs = _trained(database) if "gpu_hours" in kinds else []
    speed = SpeedModel.load(measured, question.device, head=question.head, runs=runs)
    missing = [why for kind in kinds if kind not in held.EXACT and (why := speed.why(kind))]
    return speed, [*([] if missing else [speed.basis]), *dict.fromkeys(missing), *set_apart(measured, speed.bench)]


def measured_rows(database: Path | None = None) -> list[Measured]:
    """Every measured row of the store; none when there is no store yet."""
    connection = files.open_read(database)
    if connection is None:
        return []
    with closing(connection):
        return from_measurements(measurements(connection))


def _trained(database: Path | None) -> list[TrainedRun]:
    """The user's trainings that tell what training takes."""
    connection = files.open_read(database)
    if connection is None:
        return []
    with closing(connection):
        return trained_runs(list_runs(connection))
