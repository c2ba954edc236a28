"""Which of the user's own runs stand in a ranking, and why the others do not.

A run is comparable when nothing but the backbone, its pretraining and its resolution differs from what was asked: the
official data, the head as it is by default, the shipped recipe of the dataset unchanged, the weights of the card, the
usual single-scale protocol. Every other run is shown beside the answer and never mixed in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from luma_cli.advise import budgets as held
from luma_cli.advise.budgets import Priced
from luma_cli.advise.candidates import Candidate
from luma_cli.advise.question import Question
from luma_cli.evidence.evidence import DATASET_TITLES
from luma_cli.evidence.own_runs import OwnRow, OwnRun, recipe_for

_UNUSUAL = {"running": "still running", "stopped": "stopped early"}


def judge(runs: Sequence[OwnRun], question: Question) -> list[OwnRow]:
    """Each run that says something about the dataset, with what speaks against ranking it; budgets are not looked at.

    Runs on the official files of another dataset are left out. Those on its official files come first, best mIoU first.
    """
    others = DATASET_TITLES.keys() - {question.dataset}
    rows = [OwnRow(run, tuple(_differences(run, question))) for run in runs if run.base not in others]
    return sorted(rows, key=lambda row: (*_distance(row.run, question.dataset), -row.run.miou_percent, row.run.run_id))


def _distance(run: OwnRun, dataset: str) -> tuple[bool, bool]:
    """Sort key: the official files of the dataset, then other files of it, then other datasets."""
    return run.data != dataset, run.base != dataset


def with_own(pool: Sequence[Candidate], rows: Sequence[OwnRow]) -> list[Candidate]:
    """The candidates, and the models of comparable runs that are not among them: no card, or another resolution."""
    known = {each.run_key for each in pool}
    added = {}
    for row in rows:
        key = row.run.run_key
        if not row.why_not and key not in known:
            family = next((each.family for each in pool if each.architecture == row.run.architecture), "unknown")
            added[key] = replace(candidate_of(row.run), family=family)
    return [*pool, *added.values()]


def candidate_of(run: OwnRun) -> Candidate:
    """The very model that was trained, for a ranking that has no card of it."""
    return Candidate(
        name=run.backbone,
        timm_name=run.timm_name,
        architecture=run.architecture,
        resolution=run.resolution,
        macs=run.macs,
        params=run.params,
        pretraining=run.pretraining,
    )


def settled(
    rows: Sequence[OwnRow], within: Collection[Priced], pool: Collection[Priced], question: Question
) -> tuple[OwnRow, ...]:
    """The rows, a budget that a comparable run does not meet now among the reasons; those that meet all come first."""
    kept = {each.candidate.run_key for each in within}
    known = {each.candidate.run_key: each for each in pool}
    found = []
    for row in rows:
        key = row.run.run_key
        if not row.why_not and key not in kept:
            row = replace(row, why_not=tuple(_unmet(known.get(key), question)))
        found.append(row)
    return tuple(sorted(found, key=lambda row: bool(row.why_not)))


def _differences(run: OwnRun, question: Question) -> Iterator[str]:
    asked = question.dataset
    if run.dataset.partition("#")[0] != run.base:
        yield f"trained on {run.dataset}"
    elif (run.data, run.dataset) != (asked, asked):  # each split has a fingerprint of its own
        yield f"data other than the official {asked}"
    if run.split != "val":
        yield f"split {run.split}"
    if run.status != "finished":
        yield _UNUSUAL.get(run.status, run.status)
    if run.head.name != question.head:
        yield f"head {run.head.name}"
    elif not run.has_default_head:
        yield f"head {run.head.name} with other options"
    yield from _recipe_differences(run, question)
    if run.weights != "pretrained":
        yield f"weights {run.weights}"
    if not run.single_scale:
        yield "test-time augmentation"
    if run.absent != "skip":
        yield f"absent classes count {run.absent}"
    if run.num_skipped:
        yield f"{run.num_skipped} images skipped"
    if question.resolutions and run.resolution not in question.resolutions:
        yield f"{run.resolution} px was not asked for"


def _recipe_differences(run: OwnRun, question: Question) -> Iterator[str]:
    if run.recipe.endswith("+"):
        yield f"recipe {run.recipe[:-1]} changed"
    elif run.recipe != recipe_for(question.dataset, run.head.name):
        yield f"recipe {run.recipe}"
    elif not run.usual_recipe:
        yield f"recipe {run.recipe} of another version"


def _unmet(priced: Priced | None, question: Question) -> Iterator[str]:
    """Why a comparable run's model is not among the candidates within budget."""
    if priced is None:
        yield "its weights are not public" if not question.filters else f"none{question.filters} was asked for"
        return
    for budget in question.budgets:
        quantity = priced.costs.get(budget.kind)
        if quantity is None:
            yield f"its {held.TITLES[budget.kind]} is not known"
        elif held.hold(priced, budget) != "within":
            yield f"{held.explain(quantity, question.convention)} does not surely meet {budget.text}"
