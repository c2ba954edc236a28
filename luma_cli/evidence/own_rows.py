"""The user's own finished runs on official data as rows of the table of results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache

from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.evidence.own_run import HERE, OwnRun
from luma_cli.head.config import HeadConfig


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
    if run.head != _default_head(run.head.name, run.head.num_classes):
        yield "other head options"
    usual = f"eomt-{run.data}" if run.head.name == "eomt" else run.data
    if run.recipe != usual or not run.usual_recipe:
        yield f"recipe {run.recipe.removesuffix('+')}" + ("" if run.usual_recipe else " changed")
    if run.weights != "pretrained":
        yield f"weights {run.weights}"
    if run.absent != "skip":
        yield f"absent classes count {run.absent}"
    if run.num_skipped:
        yield f"{run.num_skipped} images skipped"


@cache
def _default_head(name: str, num_classes: int) -> HeadConfig:
    return HeadConfig(name=name, **({"num_classes": num_classes} if name != "none" else {}))  # type: ignore[arg-type]
