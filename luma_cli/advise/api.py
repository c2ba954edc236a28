"""`recommend` with the user's own runs and measurements read from the store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from luma_cli.advise.answer import Recommendation
from luma_cli.advise.budgets import MEASURED
from luma_cli.advise.recommend import recommend as answer
from luma_cli.errors import StoreError
from luma_cli.evidence.own_run import OwnRun, from_scored
from luma_cli.head.config import HeadName
from luma_cli.speed.measured import Measured, from_measurements
from luma_cli.store import database as files
from luma_cli.store.measurements import measurements
from luma_cli.store.scored_runs import scored_runs
from luma_cli.units import Budget, FlopConvention, parse_budget


def recommend(
    budgets: str | Sequence[str | Budget],
    *,
    dataset: str = "ade20k",
    resolutions: Sequence[int] = (),
    families: Sequence[str] = (),
    top: int = 5,
    head: HeadName = "luma",
    device: str | None = None,
    convention: FlopConvention = "mac",
    database: Path | None = None,
) -> Recommendation:
    """The best backbone, pretraining and resolution that meet every budget; see `advise.recommend.recommend`.

    database: the store with the user's own runs and, where a budget needs them, measured rows; $LUMA_DB or the data
    folder when None. A store that cannot be read is only an error where a budget needs it; else a note says so.
    Raises NoAnswer, UsageError, StoreError.

    >>> recommend("200gflops").rows[0].candidate.macs <= 200e9  # doctest: +SKIP
    True
    """
    given = [budgets] if isinstance(budgets, str) else budgets
    asked = [parse_budget(each, convention) if isinstance(each, str) else each for each in given]
    needed = any(budget.kind in MEASURED for budget in asked)
    runs, problem = _own_runs(database)
    found = answer(
        asked,
        dataset=dataset,
        resolutions=resolutions,
        families=families,
        top=top,
        head=head,
        device=device,
        convention=convention,
        measured=measured_rows(database) if needed else (),
        own_runs=runs,
    )
    return replace(found, notes=(*found.notes, problem)) if problem else found


def _own_runs(database: Path | None) -> tuple[list[OwnRun], str]:
    """The user's runs with scores, and why they could not be read."""
    try:
        connection = files.open_read(database)
        if connection is None:
            return [], ""
        with closing(connection):
            return from_scored(scored_runs(connection)), ""
    except StoreError as error:
        return [], f"own runs were not read: {error}"


def measured_rows(database: Path | None = None) -> list[Measured]:
    """Every measured row of the store that may answer a budget; none when there is no store yet."""
    connection = files.open_read(database)
    if connection is None:
        return []
    with closing(connection):
        return from_measurements(measurements(connection))
