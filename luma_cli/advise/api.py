"""`recommend` in one call: the shipped tables, the user's own runs and measurements, and the model learned from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.prediction import AccuracyModel
from luma_cli.advise import budgets as held
from luma_cli.advise import candidates as shipped
from luma_cli.advise.answer import Recommendation
from luma_cli.advise.candidates import num_classes, with_measured
from luma_cli.advise.own_runs import judge, with_own
from luma_cli.advise.question import Objective, Question, check_names
from luma_cli.advise.recommend import recommend as answer
from luma_cli.errors import StoreError
from luma_cli.evidence.evidence import Evidence, load_reference
from luma_cli.evidence.own_rows import own_rows
from luma_cli.evidence.own_run import OwnRun, from_scored
from luma_cli.evidence.table import load_evidence
from luma_cli.head.config import HeadName
from luma_cli.speed.measured import Measured, from_measurements
from luma_cli.speed.model import SpeedModel
from luma_cli.store import database as files
from luma_cli.store.measurements import measurements
from luma_cli.store.scored_runs import scored_runs
from luma_cli.units import Budget, FlopConvention, parse_budget


def recommend(
    budgets: str | Sequence[str | Budget] = (),
    *,
    dataset: str = "ade20k",
    objective: Objective = "miou",
    resolutions: Sequence[int] = (),
    families: Sequence[str] = (),
    pretrainings: Sequence[str] = (),
    licences: Sequence[str] = (),
    top: int = 3,
    head: HeadName = "luma",
    device: str | None = None,
    convention: FlopConvention = "mac",
    database: Path | None = None,
    with_reasons: bool = False,
    fit: Callable[[Sequence[Evidence]], AccuracyModel] = load_model,
) -> Recommendation:
    """The best backbone, pretraining and resolution that surely meet every budget.

    budgets: as `200gflops` or parsed; of several in one unit the tightest binds. objective: the highest mIoU, the
    highest mIoU per ms, or the knee of the front. device: of budgets in time, rate, memory, energy or GPU-hours: one
    that was measured, or one that ships; the only measured one when None. database: the store with the user's own runs
    and measurements; $LUMA_DB or the data folder when None. A store that cannot be read is only an error where a budget
    needs it; else a note says so. with_reasons: effects and nearest evidence for each row. fit: learns accuracy from
    published and imported results and finished own runs on official data. Raises NoAnswer, UsageError, StoreError.

    >>> recommend("200gflops").rows[0].candidate.macs <= 200e9  # doctest: +SKIP
    True
    """
    given = [budgets] if isinstance(budgets, str) else budgets
    question = Question(
        dataset,
        held.tightest(parse_budget(each, convention) if isinstance(each, str) else each for each in given),
        objective,
        tuple(resolutions),
        frozenset(families),
        frozenset(pretrainings),
        frozenset(licences),
        convention,
        device,
        head,
    )
    num_classes(dataset)
    pool = shipped.load(dataset, resolutions, question.is_timed, head)
    check_names(question, pool)
    facts, runs, problem = _known(database)
    judged = judge(runs, question)
    evidence = [*facts, *own_rows(runs)]
    pool = with_own(pool, judged)
    speed = SpeedModel.load(measured_rows(database), device, head=head) if question.is_timed else None
    if speed is not None:
        pool = with_measured(pool, speed.bench.rows, head)
    found = answer(
        question,
        pool,
        fit(evidence),
        evidence=evidence,
        own=judged,
        speed=speed,
        top=top,
        with_reasons=with_reasons,
    )
    return replace(found, notes=(*found.notes, *_device_notes(question, speed), *filter(None, [problem])))


def _device_notes(question: Question, speed: SpeedModel | None) -> list[str]:
    if speed is None:
        return [f"device {question.device} is not used: nothing asked depends on it"] if question.device else []
    bench = speed.bench
    notes = [f"measured on {bench.conditions.label}; batch-1 eager latency"] if bench.conditions else []
    if bench.num_older:
        notes.append(f"{bench.num_older} rows of this device are from another environment: evidence, not answers")
    if bench.num_left_out:
        notes.append(f"{bench.num_left_out} rows measured under other conditions, flagged or since repeated are left out")
    return notes


def _known(database: Path | None) -> tuple[list[Evidence], list[OwnRun], str]:
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


def measured_rows(database: Path | None = None) -> list[Measured]:
    """Every measured row of the store that may answer a budget; none when there is no store yet."""
    connection = files.open_read(database)
    if connection is None:
        return []
    with closing(connection):
        return from_measurements(measurements(connection))
