"""What an answer starts from: candidates, the user's own runs, the model learned from all evidence, and costs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.advise import candidates as shipped
from luma_cli.advise.candidates import Candidate, num_classes, with_measured
from luma_cli.advise.costs import price
from luma_cli.advise.question import EXACT, TITLES, Priced, Question, check_names, explain, hold
from luma_cli.errors import StoreError
from luma_cli.evidence.evidence import DATASET_TITLES, Evidence, load_reference
from luma_cli.evidence.own_runs import OwnRow, OwnRun, from_scored, own_rows, recipe_for
from luma_cli.evidence.table import load_evidence
from luma_cli.store import database as files
from luma_cli.store.runs import scored_runs
from luma_cli.units import BudgetKind, convention_caption

if TYPE_CHECKING:
    from luma_cli.speed.model import SpeedModel


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
            yield f"its {TITLES[budget.kind]} is not known"
        elif hold(priced, budget) != "within":
            yield f"{explain(quantity, question.convention)} does not surely meet {budget.text}"


Fit = Callable[[Sequence[Evidence]], AccuracyModel]


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that is known when a question is asked.

    pool: candidates that pass the question's filters, with their costs. own: the user's runs as judged. evidence: what
    the model has learned from. speed: of the device, None where no cost that was asked for depends on one. notes: what
    a reader must know about all this.
    """

    question: Question
    pool: tuple[Priced, ...]
    own: tuple[OwnRow, ...]
    model: AccuracyModel
    evidence: tuple[Evidence, ...] = ()
    speed: SpeedModel | None = None
    notes: tuple[str, ...] = ()

    @property
    def trained(self) -> frozenset[tuple[str, int]]:
        """Timm name and resolution of every comparable run of the user's own."""
        return frozenset(row.run.run_key for row in self.own if not row.why_not)

    def only_own(self) -> Setting:
        """The same with no candidates but those that the user has trained comparably."""
        kept = [each for each in self.pool if each.candidate.run_key in self.trained]
        return replace(self, pool=tuple(kept))


def load(
    question: Question, kinds: Sequence[BudgetKind], database: Path | None = None, fit: Fit = load_model
) -> Setting:
    """The setting of a question from the shipped tables and the store.

    kinds: of the costs that are shown. database: $LUMA_DB or the data folder when None. A store that cannot be read is
    only an error where a cost depends on it; else a note says so. Raises NoAnswer, UsageError, StoreError.
    """
    classes = num_classes(question.dataset)
    asked = tuple(dict.fromkeys((*question.kinds, *kinds)))
    is_timed = not EXACT.issuperset(asked)
    pool = shipped.load(question.dataset, question.resolutions, is_timed, question.head)
    check_names(question, pool)
    speed, device_notes = _speed(question, asked, database) if is_timed else (None, [])
    facts, runs, problem = known(database)
    own = judge(runs, question)
    pool = with_own(pool, own)
    if speed is not None:
        pool = with_measured(pool, speed.bench.rows, question.head)
    evidence = (*facts, *own_rows(runs))
    priced = price(question.eligible(pool), asked, speed, question.head, classes)
    notes = [*_notes(question, kinds, is_timed), *device_notes, *filter(None, [problem])]
    return Setting(question, tuple(priced), tuple(own), fit(evidence), evidence, speed, tuple(notes))


def _speed(question: Question, kinds: Sequence[BudgetKind], database: Path | None) -> tuple[SpeedModel, list[str]]:
    from luma_cli.advise.costs import load_speed  # what only depends on counts must not wait for it

    return load_speed(question, kinds, database)


def known(database: Path | None) -> tuple[list[Evidence], list[OwnRun], str]:
    """Shipped and imported results, the user's runs with scores, and why the store's could not be read."""
    try:
        connection = files.open_read(database)
        if connection is None:
            return load_reference(), [], ""
        with closing(connection):
            runs = from_scored(scored_runs(connection))
        return load_evidence(database, own=False), runs, ""
    except StoreError as error:
        return load_reference(), [], f"own runs and imported results were not read: {error}"


def _notes(question: Question, kinds: Sequence[BudgetKind], is_timed: bool) -> list[str]:
    notes = []
    if "macs" in kinds:
        notes.append(f"{convention_caption(question.convention)}; whole segmenter on one square crop")
    if question.device and not is_timed:
        notes.append(f"device {question.device} is not used: nothing asked depends on it")
    return notes
