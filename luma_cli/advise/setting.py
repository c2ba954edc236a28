"""The basis of every answer: candidates with costs, the user's own runs, and the model learned from all evidence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import AccuracyModel, Prediction
from luma_cli.accuracy.subjects import Subject
from luma_cli.advise import candidates as shipped
from luma_cli.advise.candidates import Candidate, has_evidence, num_classes, subject, uncarded, with_measured
from luma_cli.advise.costs import load_speed, price, train_batch
from luma_cli.advise.question import DEVICELESS, Priced, Question, check_names, explain, hold, not_known
from luma_cli.errors import StoreError
from luma_cli.evidence.evidence import Evidence, load_reference
from luma_cli.evidence.own_runs import OwnRow, differences, own_rows
from luma_cli.evidence.table import load_evidence
from luma_cli.store import database as files
from luma_cli.units import BudgetKind, convention_caption

if TYPE_CHECKING:
    from luma_cli.speed.model import SpeedModel
    from luma_cli.store.runs import OwnRun


Fit = Callable[[Sequence[Evidence]], AccuracyModel]


@dataclass(frozen=True, slots=True)
class AdviceSetting:
    """All that is known when a question is asked.

    pool: candidates that pass the question's filters, with their costs. own: the user's runs as judged. evidence: the
    model's training rows. speed: of the device, None where no cost depends on one.
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
        return comparable(self.own)


class Judged(NamedTuple):
    """A candidate with its prediction."""

    priced: Priced
    subject: Subject
    prediction: Prediction

    @property
    def miou(self) -> float:
        """The expected mIoU in percent."""
        return self.prediction.miou_percent

    @property
    def supported(self) -> bool:
        """Whether any row of the evidence is about the backbone."""
        return has_evidence(self.prediction)


def tier(judged: Judged) -> int:
    """How much stands behind a candidate: 0 direct evidence, 1 its series, 2 an extrapolation, 3 nothing."""
    support, is_outside = judged.prediction.support, judged.prediction.extrapolated
    if not judged.supported:
        return 3
    if is_outside or support.standing == "none":
        return 2
    return 1 if support.standing == "same series" else 0


LEAST_TRAINED = 384  # px; nothing published is smaller than 448


def worth_training(pool: Sequence[Judged]) -> list[bool]:
    """Of each whether results of its series exist, its size is one that people train at, and it could be the best.

    The rest is exploration. It could be the best when the upper end of its 90% interval reaches the highest
    expectation among those that may be recommended.
    """
    least = max((each.miou for each in pool if tier(each) < 2), default=0.0)
    return [
        tier(each) < 3 and each.priced.candidate.resolution >= LEAST_TRAINED and each.prediction.interval_90[1] >= least
        for each in pool
    ]


def predicted(question: Question, pool: Iterable[Priced], model: AccuracyModel) -> list[Judged]:
    """The candidates with the model's predictions for the question's head, in order."""
    priced = list(pool)
    subjects = [subject(each.candidate, question.dataset, question.head) for each in priced]
    predictions = model.predict(subjects) if subjects else []
    return [Judged(*each) for each in zip(priced, subjects, predictions, strict=True)]


def load(
    question: Question, kinds: Sequence[BudgetKind], database: Path | None = None, fit: Fit = load_model
) -> AdviceSetting:
    """The setting of a question from the shipped tables and the store.

    kinds: of the costs that are shown. database: $LUMA_DB or the data folder when None. A store that cannot be read is
    an error where a cost depends on it, otherwise a note. Raises NoAnswer, UsageError, StoreError.
    """
    classes = num_classes(question.dataset)
    asked = tuple(dict.fromkeys((*question.kinds, *kinds)))
    is_timed = not DEVICELESS.issuperset(asked)
    pool = shipped.load(question.dataset, question.resolutions, is_timed, question.head)
    check_names(question, pool)
    speed, device_notes = load_speed(question, asked, database) if is_timed else (None, [])
    facts, runs, problem = known(database)
    own = judge(runs, question)
    pool = with_own(pool, own)
    if speed is not None:
        pool = with_measured(pool, speed.bench.rows, question.head)
    evidence = (*facts, *own_rows(runs))
    priced = price(
        question.eligible(pool), asked, speed, question.head, classes, question.windows, train_batch(question)
    )
    notes = [*_notes(question, kinds, is_timed), *device_notes, *filter(None, [problem])]
    return AdviceSetting(question, tuple(priced), tuple(own), fit(evidence), evidence, speed, tuple(notes))


def known(database: Path | None) -> tuple[list[Evidence], list[OwnRun], str]:
    """Shipped and imported results, the user's runs with scores, and why the store could not be read."""
    try:
        connection = files.open_read(database)
        if connection is None:
            return load_reference(), [], ""
        from luma_cli.store.runs import scored_runs  # an answer without a database does without

        with closing(connection):
            runs = scored_runs(connection)
        return load_evidence(database, own=False), runs, ""
    except StoreError as error:
        if database is not None:  # named by the user: an answer without it would be to another question
            raise
        return load_reference(), [], f"own runs and imported results were not read: {error}"


def _notes(question: Question, kinds: Sequence[BudgetKind], is_timed: bool) -> list[str]:
    notes = []
    if "macs" in kinds:
        notes.append(f"{convention_caption(question.convention)}; whole segmenter on one square crop")
    if question.device and not is_timed:
        notes.append(f"device {question.device} is not used: nothing asked depends on it")
    return notes


def judge(runs: Sequence[OwnRun], question: Question) -> list[OwnRow]:
    """The runs on the question's dataset, each with the reasons against ranking it, budgets aside.

    A run is comparable when only the backbone, its pretraining and its resolution differ from the usual run. Those on
    the dataset's official files come first, best mIoU first.
    """
    rows = []
    for run in runs:
        if run.base == question.dataset:
            why_not = [text for _, text in differences(run, question.dataset, question.head)]
            if question.resolutions and run.resolution not in question.resolutions:
                why_not.append(f"{run.resolution} px was not asked for")
            rows.append(OwnRow(run, tuple(why_not)))
    return sorted(rows, key=lambda row: (row.run.data != question.dataset, -row.run.miou_percent, row.run.run_id))


def comparable(rows: Iterable[OwnRow]) -> frozenset[tuple[str, int]]:
    """Timm name and resolution of the comparable runs."""
    return frozenset(row.run.run_key for row in rows if not row.why_not)


def with_own(pool: Sequence[Candidate], rows: Sequence[OwnRow]) -> list[Candidate]:
    """The candidates, with the models of comparable runs that lack a card or have another resolution."""
    known = {each.run_key for each in pool}
    added = {}
    for row in rows:
        run = row.run
        if not row.why_not and run.run_key not in known:
            family = next((each.family for each in pool if each.architecture == run.architecture), "unknown")
            added[run.run_key] = uncarded(run, run.backbone, family)
    return [*pool, *added.values()]


def settled(
    rows: Sequence[OwnRow], within: Collection[Priced], pool: Collection[Priced], question: Question
) -> tuple[OwnRow, ...]:
    """The rows, with unmet budgets among the reasons; those that meet all come first."""
    kept = {each.candidate.run_key for each in within}
    priced = {each.candidate.run_key: each for each in pool}
    found = [
        row
        if row.why_not or row.run.run_key in kept
        else replace(row, why_not=tuple(_unmet(priced.get(row.run.run_key), question)))
        for row in rows
    ]
    return tuple(sorted(found, key=lambda row: bool(row.why_not)))


def _unmet(priced: Priced | None, question: Question) -> Iterator[str]:
    """Why the model of a comparable run is not within budget."""
    if priced is None:
        yield "its weights are not public" if not question.filters else f"none{question.filters} was asked for"
        return
    for budget in question.budgets:
        quantity = priced.costs.get(budget.kind)
        if quantity is None:
            yield f"its {not_known(budget.kind)}"
        elif hold(priced, budget) != "within":
            yield f"{explain(quantity, question.convention)} does not surely meet {budget.text}"
