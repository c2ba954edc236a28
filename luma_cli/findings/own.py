"""Which of the user's own runs a claim may rest on: finished, public weights, official data, unchanged recipe."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from luma_cli.evidence.own_runs import OwnRun, recipe_for
from luma_cli.findings.finding import Row


@dataclass(frozen=True, slots=True)
class OwnScore:
    """One model of the user's with one head: the mean mIoU over its seeds. ids: of the runs."""

    timm_name: str
    resolution: int
    head: str
    miou_percent: float
    ids: tuple[str, ...]


def usable(run: OwnRun, dataset: str, own_weights: bool = False) -> bool:
    """Whether the run's score may stand beside others of the dataset; heads and backbones may differ.

    own_weights: whether weights from a file or folder of the user's will do; random ones never do.
    """
    return (
        (run.data, run.dataset, run.split, run.status) == (dataset, dataset, "val", "finished")
        and (run.recipe, run.usual_recipe) == (recipe_for(dataset, run.head.name), True)
        and (run.weights != "random" if own_weights else run.weights == "pretrained")
        and (run.single_scale, run.absent, run.num_skipped) == (True, "skip", 0)
        and run.has_default_head
    )


def own_scores(runs: Iterable[OwnRun], dataset: str, own_weights: bool = False) -> list[OwnScore]:
    """Mean score of every model and head over seeds, in a fixed order; own_weights as in `usable`."""
    groups: dict[tuple[str, int, str], list[OwnRun]] = defaultdict(list)
    for run in runs:
        if usable(run, dataset, own_weights):
            groups[run.timm_name, run.resolution, run.head.name].append(run)
    return [
        OwnScore(*key, fmean(run.miou_percent for run in group), tuple(sorted(run.run_id for run in group)))
        for key, group in sorted(groups.items())
    ]


def own_rows(runs: Iterable[OwnRun], ids: Iterable[str]) -> list[Row]:
    """The runs with these ids as rows behind a claim."""
    wanted = set(ids)
    return [
        Row(
            run.run_id,
            f"{run.miou_percent:.2f} mIoU, {run.timm_name}, head {run.head.name}, {run.resolution} px, seed {run.seed}",
            f"your run {run.run_id}",
        )
        for run in runs
        if run.run_id in wanted
    ]
