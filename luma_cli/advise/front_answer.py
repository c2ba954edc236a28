"""`luma front` in one call: the learned front of a question, from the shipped tables and the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from luma_cli.accuracy.model import load_model
from luma_cli.advise.axis import axis_kind
from luma_cli.advise.learned_front import LearnedFront, learned_front
from luma_cli.advise.question import Question
from luma_cli.advise.setting import Fit, Setting, load
from luma_cli.errors import NoAnswer


def front_of(
    question: Question,
    axis: str = "gflops",
    *,
    only_own: bool = False,
    database: Path | None = None,
    fit: Fit = load_model,
) -> LearnedFront:
    """The learned front over `axis`, one of `axis.AXES`. only_own: of what the user has trained comparably.

    Raises NoAnswer when nothing can stand on it, UsageError, StoreError.
    """
    kind = axis_kind(axis)
    setting = load(question, (kind,), database, fit)
    if only_own:
        setting = _own(setting)
    found = learned_front(question, kind, setting.pool, setting.model, setting.own)
    return replace(found, notes=(*found.notes, *_apart(setting), *setting.notes))


def _own(setting: Setting) -> Setting:
    if not setting.trained:
        why = next((", ".join(row.why_not) for row in setting.own), "")
        reason = f": the best is not comparable ({why})" if why else ""
        raise NoAnswer(f"no comparable run of your own on {setting.question.dataset}{reason}; run: luma next")
    return setting.only_own()


def _apart(setting: Setting) -> list[str]:
    """Own runs that have no distance, and the first reason of each."""
    reasons = [row.why_not[0] for row in setting.own if row.why_not]
    if not reasons:
        return []
    runs = "run is" if len(reasons) == 1 else "runs are"
    return [f"{len(reasons)} own {runs} not comparable: {', '.join(sorted(set(reasons)))}"]
