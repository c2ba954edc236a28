"""What an answer starts from: candidates, the user's own runs, the model learned from all evidence, and costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.advise import budgets as held
from luma_cli.advise import candidates as shipped
from luma_cli.advise.budgets import Priced
from luma_cli.advise.candidates import num_classes, with_measured
from luma_cli.advise.own_runs import judge, with_own
from luma_cli.advise.pricing import price
from luma_cli.advise.question import Question, check_names
from luma_cli.errors import StoreError
from luma_cli.evidence.evidence import Evidence, load_reference
from luma_cli.evidence.own_runs import OwnRow, OwnRun, from_scored, own_rows
from luma_cli.evidence.table import load_evidence
from luma_cli.store import database as files
from luma_cli.store.runs import scored_runs
from luma_cli.units import BudgetKind, convention_caption

if TYPE_CHECKING:
    from luma_cli.speed.model import SpeedModel

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
    is_timed = not held.EXACT.issuperset(asked)
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
    from luma_cli.advise.device import load_speed  # what only depends on counts must not wait for it

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
