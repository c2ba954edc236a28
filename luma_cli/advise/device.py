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
from luma_cli.store.profiles import device_names, measurements
from luma_cli.store.runs import list_runs
from luma_cli.units import BudgetKind


def load_speed(question: Question, kinds: Sequence[BudgetKind], database: Path | None) -> tuple[SpeedModel, list[str]]:
    """The model of the device's speed from the store and from what ships, and what a reader must know about it.

    kinds: of the costs that are needed. Raises UsageError when several devices could be meant, StoreError.
    """
    measured = measured_rows(database, question.device)
    runs = _trained(database) if "gpu_hours" in kinds else []
    speed = SpeedModel.load(measured, question.device, head=question.head, runs=runs)
    missing = [why for kind in kinds if kind not in held.EXACT and (why := speed.why(kind))]
    return speed, [*([] if missing else [speed.basis]), *dict.fromkeys(missing), *set_apart(measured, speed.bench)]


def measured_rows(database: Path | None = None, device: str | None = None) -> list[Measured]:
    """Measured rows of the store; of the one device alone that `device` is part of the name of, where there is one.

    A kind (`cpu`, `cuda:0`) may mean several and is told apart later.
    """
    connection = files.open_read(database)
    if connection is None:
        return []
    with closing(connection):
        wanted = (device or "").lower()
        is_kind = wanted.partition(":")[0] in ("", "cpu", "cuda")
        named = [] if is_kind else [name for name in device_names(connection) if wanted in name.lower()]
        return from_measurements(measurements(connection, named[0] if len(named) == 1 else None))


def _trained(database: Path | None) -> list[TrainedRun]:
    """The user's trainings that tell what training takes."""
    connection = files.open_read(database)
    if connection is None:
        return []
    with closing(connection):
        return trained_runs(list_runs(connection))
