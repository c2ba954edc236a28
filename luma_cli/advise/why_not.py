"""`luma recommend --why-not NAME`: where a backbone stands in an answer, and what would put it first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from luma_cli.accuracy.model import load_model
from luma_cli.advise.fronts import NUM_DRAWS
from luma_cli.advise.question import Question, explain, hold, not_known
from luma_cli.advise.recommend import OUT_OF_THE_QUESTION, Recommended, recommendation
from luma_cli.advise.setting import Fit, Judged, load, predicted, tier
from luma_cli.errors import NoAnswer, UnknownName


@dataclass(frozen=True, slots=True)
class WhyNot:
    """row: the backbone at the size at which it does best. first: of the answer, None where there is no answer.

    reasons: why it is not first, the decisive one first; empty when it is. better: share of joint draws in which it is
    better than the first. remedy: what would put it first.
    """

    question: Question
    row: Recommended
    first: Recommended | None
    reasons: tuple[str, ...]
    better: float | None
    remedy: str

    def to_json(self) -> dict[str, Any]:
        """Schema 1."""
        return {
            "schema": 1,
            "dataset": self.question.dataset,
            "backbone": self.row.to_json(self.question),
            "first": self.first and self.first.to_json(self.question),
            "p_better_than_first": self.better,
            "reasons": list(self.reasons),
            "remedy": self.remedy or None,
        }


def why_not(question: Question, name: str, database: Path | None = None, fit: Fit = load_model) -> WhyNot:
    """Where the backbone of a card's, timm's or an architecture's name stands.

    Raises UnknownName, naming the nearest names, for a name that no candidate has.
    """
    free = replace(question, families=frozenset(), pretrainings=frozenset(), licences=frozenset(), resolutions=())
    setting = load(free, (*question.kinds, "macs"), database, fit)
    pool = setting.pool
    named = [each for each in pool if name in _names(each.candidate)]
    if not named:
        known = sorted({each.candidate.name for each in pool})
        near = get_close_matches(name, known, 3, 0.5) or [each for each in known if each.startswith(name[:4])][:3]
        hint = f"nearest: {', '.join(near)}" if near else "luma list shows all"
        raise UnknownName(f"--why-not {name!r} is no candidate; {hint}")
    eligible = {each.key for each in question.eligible([each.candidate for each in pool])}
    inside = [each for each in pool if each.candidate.key in eligible]
    try:
        answer = recommendation(question, inside, setting.model, own=setting.own, with_next_run=False)
        first = answer.rows[0] if answer.rows else None
    except NoAnswer:
        first = None
    judged = predicted(question, named, setting.model)
    mine = max(judged, key=lambda each: _promise(question, each, each.priced.candidate.key in eligible))
    candidate = mine.priced.candidate
    row = Recommended(0, mine.priced, mine.prediction, question.windows(candidate.resolution))
    if first is not None and first.candidate.key == candidate.key:
        return WhyNot(question, row, first, (), None, "")
    better = None
    if first is not None:
        (theirs,) = predicted(question, [first.priced], setting.model)
        drawn = np.asarray(setting.model.draws([mine.subject, theirs.subject], NUM_DRAWS))
        better = float((drawn[:, 0] > drawn[:, 1]).mean())
    reasons = _reasons(question, mine, first, better, candidate.key in eligible)
    return WhyNot(question, row, first, tuple(reasons), better, _remedy(question, mine, first, reasons))


def _names(candidate: Any) -> set[str]:
    return {candidate.name, candidate.timm_name, candidate.architecture, candidate.title}


def _promise(question: Question, judged: Judged, is_eligible: bool) -> tuple[bool, bool, int, float]:
    fits = all(hold(judged.priced, budget) == "within" for budget in question.budgets)
    return is_eligible, fits, -tier(judged), judged.miou


def _reasons(
    question: Question, mine: Judged, first: Recommended | None, better: float | None, is_eligible: bool
) -> list[str]:
    candidate, found = mine.priced.candidate, list[str]()
    if not is_eligible:
        said = {
            "--license": question.licences and candidate.licence not in question.licences,
            "--pretraining": question.pretrainings and candidate.pretraining not in question.pretrainings,
            "--family": question.families and candidate.family not in question.families,
            "--res": question.resolutions and candidate.resolution not in question.resolutions,
        }
        values = {
            "--license": candidate.licence,
            "--pretraining": candidate.pretraining,
            "--family": candidate.family,
            "--res": candidate.resolution,
        }
        found += [f"{option} leaves it out: it is {values[option]}" for option, out in said.items() if out]
        found += [] if found else ["it has no public weights"]
    for budget in question.budgets:
        quantity = mine.priced.costs.get(budget.kind)
        if quantity is None:
            found.append(not_known(budget.kind))
        elif hold(mine.priced, budget) != "within":
            found.append(f"{explain(quantity, question.convention)} does not surely meet {budget.text}")
    if tier(mine):
        kind = {1: "only results of its series", 2: mine.prediction.reason or "extrapolated", 3: "no result at all"}
        found.append(f"no direct evidence: {kind[tier(mine)]}")
    if first is not None and better is not None:
        gap = mine.miou - first.prediction.miou_percent
        if better < 1 - OUT_OF_THE_QUESTION:
            found.append(f"{first.candidate.label} is {-gap:.1f} mIoU ahead, better with probability {1 - better:.2f}")
        elif not found:
            found.append(
                f"it ties with {first.candidate.label} (P {better:.2f}), which has more evidence or costs less"
            )
    return found


def _remedy(question: Question, mine: Judged, first: Recommended | None, reasons: list[str]) -> str:
    """What would put it first."""
    candidate = mine.priced.candidate
    if first is None or not reasons:
        return ""
    if any(each.startswith("--") for each in reasons):
        return "leave the filter out"
    if any("meet" in each for each in reasons):
        cost = explain(mine.priced.costs[question.budgets[0].kind], question.convention)
        return f"a budget above {cost}; there it would stand against more"
    target = first.prediction.miou_percent
    run = f"luma train {candidate.name} --data {question.dataset} --res {candidate.resolution}"
    return f"an own run above {target:.1f} mIoU: {run}"
