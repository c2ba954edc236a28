"""`recommend` with the user's own measurements read from the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from luma_cli.advise.answer import Recommendation
from luma_cli.advise.budgets import MEASURED
from luma_cli.advise.measured import Measured, from_measurements
from luma_cli.advise.recommend import recommend as answer
from luma_cli.head.config import HeadName
from luma_cli.store import database as files
from luma_cli.store.measurements import measurements
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

    database: the store with measured rows, read only when a budget needs one; $LUMA_DB or the data folder when None.
    Raises NoAnswer, UsageError, StoreError.

    >>> recommend("200gflops").rows[0].candidate.macs <= 200e9  # doctest: +SKIP
    True
    """
    given = [budgets] if isinstance(budgets, str) else budgets
    asked = [parse_budget(each, convention) if isinstance(each, str) else each for each in given]
    needed = any(budget.kind in MEASURED for budget in asked)
    return answer(
        asked,
        dataset=dataset,
        resolutions=resolutions,
        families=families,
        top=top,
        head=head,
        device=device,
        convention=convention,
        measured=measured_rows(database) if needed else (),
    )


def measured_rows(database: Path | None = None) -> list[Measured]:
    """Every measured row of the store that may answer a budget; none when there is no store yet."""
    connection = files.open_read(database)
    if connection is None:
        return []
    try:
        return from_measurements(measurements(connection))
    finally:
        connection.close()
