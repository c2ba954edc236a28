"""The user's own runs with their scores: beside an answer, and as rows of the table of results. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from luma_cli.catalogue.recipes import default_recipe, recipe_names
from luma_cli.evidence.evidence import DATASET_TITLES, Evidence
from luma_cli.units import gmacs

if TYPE_CHECKING:
    from luma_cli.store.runs import OwnRun

HERE = "measured here"
# What may set a run apart from the usual one of its dataset.
Aspect = Literal["data", "split", "status", "head", "recipe", "weights", "scales", "counting"]
# The scale of a row says these itself.
_ON_THE_SCALE = ("split", "scales")
_UNUSUAL = {"running": "still running", "stopped": "stopped early"}


@dataclass(frozen=True, slots=True)
class OwnRow:
    """An own run beside an answer. why_not: why it is not ranked with the others, empty when it is comparable."""

    run: OwnRun
    why_not: tuple[str, ...] = ()

    def __json__(self) -> dict[str, Any]:
        """The run, its score, and whether it is ranked."""
        run = self.run
        plain = ("run_id", "backbone", "timm_name", "weights", "resolution", "recipe", "split", "num_images", "step")
        return {
            **{name: getattr(run, name) for name in (*plain, "seed", "miou_percent", "macs", "params")},
            "provenance": HERE,
            "pretraining": run.pretraining or None,
            "head": run.head.name,
            "trained_on": run.dataset,
            "evaluated_on": run.data,
            "protocol": {"single_scale": run.single_scale, "absent": run.absent, "skipped": run.num_skipped},
            "started_at": run.started_at or None,
            "gmacs": None if run.macs is None else gmacs(run.macs),
            "ranked": not self.why_not,
            "why_not_ranked": list(self.why_not),
        }


def differences(run: OwnRun, dataset: str, head: str = "") -> Iterator[tuple[Aspect, str]]:
    """What sets the run apart from the usual one of the dataset: the aspect, and its words. Callers choose the aspects.

    The usual run: official data, split val, finished, default head (of this name where one is given), the shipped
    recipe, the card's weights, single scale.
    """
    if run.dataset.partition("#")[0] != run.base:
        yield "data", f"trained on {run.dataset}"
    elif (run.data, run.dataset) != (dataset, dataset):  # each split has a fingerprint of its own
        yield "data", f"data other than the official {dataset}"
    if run.split != "val":
        yield "split", f"split {run.split}"
    if run.status != "finished":
        yield "status", _UNUSUAL.get(run.status, run.status)
    if head and run.head.name != head:
        yield "head", f"head {run.head.name}"
    elif not run.has_default_head:
        yield "head", f"head {run.head.name} with other options"
    if run.recipe.endswith("+"):
        yield "recipe", f"recipe {run.recipe[:-1]} changed"
    elif run.recipe != default_recipe(dataset, run.head.name, recipe_names(), run.timm_name):
        yield "recipe", f"recipe {run.recipe}"
    elif not run.usual_recipe:
        yield "recipe", f"recipe {run.recipe} of another version"
    if run.weights != "pretrained":
        yield "weights", f"weights {run.weights}"
    if not run.single_scale:
        yield "scales", "test-time augmentation"
    if run.absent != "skip":
        yield "counting", f"absent classes count {run.absent}"
    if run.num_skipped:
        yield "counting", f"{run.num_skipped} images skipped"


def own_rows(runs: Iterable[OwnRun]) -> list[Evidence]:
    """A row for each finished run that was trained and evaluated on the official files of one dataset.

    recipe is `measured here` and what differs from the usual run, which puts the row on a scale of its own. Split and
    scales are columns of their own.
    """
    return [
        evidence_of(run, (text for aspect, text in differences(run, run.data) if aspect not in _ON_THE_SCALE))
        for run in runs
        if run.status == "finished" and run.data == run.dataset and run.data in DATASET_TITLES
    ]


def evidence_of(run: OwnRun, differing: Iterable[str] = ()) -> Evidence:
    """The run as one row beside published ones, on a scale that no published row is on."""
    recipe = ", ".join(differing)
    return Evidence(
        id=run.run_id,
        provenance="own run",
        trust="primary",
        dataset=run.base,
        split=run.split,
        head=run.head.name,
        regime="fine-tuned",
        eval="single-scale" if run.single_scale else "ms+flip",
        backbone=run.backbone,
        miou_percent=run.miou_percent,
        height=run.resolution,
        width=run.resolution,
        recipe=f"{HERE}: {recipe}" if recipe else HERE,
        schedule=f"{run.step} iters",
        pretraining=run.pretraining,
        timm=run.timm_name,
        architecture=run.architecture,
        in_timm="tag",
        params_m=None if run.params is None else run.params / 1e6,
        params_scope="" if run.params is None else "full model",
        source=f"run {run.run_id}",
    )
