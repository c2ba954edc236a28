"""`recommend` in one call: the shipped tables, the user's runs and measurements, and the model learned from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from luma_cli.accuracy.model import LearnedModel, chooser, load_model
from luma_cli.advise import budgets as held
from luma_cli.advise.answer import Recommendation
from luma_cli.advise.chooser import Chooser
from luma_cli.advise.question import Objective, Question
from luma_cli.advise.recommend import recommend as answer
from luma_cli.advise.setting import Fit, Setting, load
from luma_cli.catalogue.heads import HeadName
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
    fit: Fit = load_model,
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
    setting = load(question, (*question.kinds, "macs"), database, fit)
    found = answer(
        question,
        setting.pool,
        setting.model,
        evidence=setting.evidence,
        own=setting.own,
        speed=setting.speed,
        chooser=_chooser(setting),
        top=top,
        with_reasons=with_reasons,
    )
    return replace(found, notes=(*found.notes, *setting.notes))


def _chooser(setting: Setting) -> Chooser | None:
    """The simple rule that beats the learned model on this dataset, if the audit found one."""
    if not isinstance(setting.model, LearnedModel):
        return None
    return chooser(setting.model, setting.question.dataset, setting.evidence)
