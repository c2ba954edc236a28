"""The user's own finished runs on official data as rows of the table of results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.evidence.own_run import HERE, OwnRun, recipe_for


def own_rows(runs: Iterable[OwnRun]) -> list[Evidence]:
    """A row for each finished run that was trained and evaluated on the official files of one dataset.

    recipe is `measured here`, and says what differs from the usual run: such a row is on a scale of its own.
    """
    return [_row(run) for run in runs if run.status == "finished" and _official(run)]


def _official(run: OwnRun) -> bool:
    return run.data == run.dataset and run.data in DATASET_TITLES


def _row(run: OwnRun) -> Evidence:
    differing = ", ".join(_differences(run))
    return replace(run.evidence, recipe=f"{HERE}: {differing}") if differing else run.evidence


def _differences(run: OwnRun) -> Iterator[str]:
    if not run.has_default_head:
        yield "other head options"
    if run.recipe != recipe_for(run.data, run.head.name) or not run.usual_recipe:
        yield f"recipe {run.recipe.removesuffix('+')}" + ("" if run.usual_recipe else " changed")
    if run.weights != "pretrained":
        yield f"weights {run.weights}"
    if run.absent != "skip":
        yield f"absent classes count {run.absent}"
    if run.num_skipped:
        yield f"{run.num_skipped} images skipped"
