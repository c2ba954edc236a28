"""`luma recommend --why-not NAME`: where a backbone stands in an answer, and what would put it first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from luma_cli.accuracy.model import load_model
from luma_cli.advise import candidates
from luma_cli.advise.costs import check_known
from luma_cli.advise.fronts import NUM_DRAWS
from luma_cli.advise.question import Question, describe, expense, explain, hold, not_known, worst
from luma_cli.advise.recommend import OUT_OF_THE_QUESTION, Recommended, recommendation, training_command
from luma_cli.advise.setting import Fit, Judged, load, predicted, tier
from luma_cli.errors import NoAnswer, UnknownName, UsageError

if TYPE_CHECKING:
    from luma_cli.advise.candidates import Candidate


@dataclass(frozen=True, slots=True)
class WhyNot:
    """row: the backbone at its most promising size. first: of the answer, None where there is no answer.

    reasons: why it is not first, the decisive one first; empty when it is. better: share of joint draws in which it is
    better than the first. remedy: what would put it first. command: the `luma train` line that the remedy asks for.
    """

    question: Question
    row: Recommended
    first: Recommended | None
    reasons: tuple[str, ...]
    better: float | None
    remedy: str
    command: str = ""

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
            "command": self.command or None,
        }


def why_not(question: Question, name: str, database: Path | None = None, fit: Fit = load_model) -> WhyNot:
    """Where the backbone of a card's, timm's or an architecture's name stands; a card alone means its best weights.

    Raises UnknownName, naming the nearest names, for a name that no candidate has; UsageError for one that the head
    does not support; NothingMeasured where a budget depends on a device that is not known.
    """
    free = replace(question, families=frozenset(), pretrainings=frozenset(), licences=frozenset(), resolutions=())
    setting = load(free, (*question.kinds, "macs"), database, fit)
    pool = setting.pool
    named = [each for each in pool if name in _names(each.candidate)]
    if not named and any(name in _names(each) for each in candidates.load(question.dataset)):
        raise UsageError(f"--why-not {name!r}: --head {question.head} does not support it; leave --head out")
    if not named:
        known = sorted({spelled for each in pool for spelled in (each.candidate.name, _stem(each.candidate))})
        near = get_close_matches(name, known, 3, 0.5) or [each for each in known if each.startswith(name[:4])][:3]
        hint = f"nearest: {', '.join(near)}" if near else "luma list shows all"
        raise UnknownName(f"--why-not {name!r} is no candidate; {hint}")
    if setting.speed is not None:
        check_known(question, pool, setting.speed)
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
    remedy, command = _remedy(question, mine, first, candidate.key in eligible)
    return WhyNot(question, row, first, tuple(reasons), better, remedy, command)


def _stem(candidate: Candidate) -> str:
    """The card's name without the pretraining: `vit_b`."""
    return candidate.name.partition(".")[0]


def _names(candidate: Candidate) -> set[str]:
    return {candidate.name, candidate.timm_name, candidate.architecture, candidate.title, _stem(candidate)}


def _promise(question: Question, judged: Judged, is_eligible: bool) -> tuple[bool, bool, int, float]:
    """Sort key of the sizes and weights that a name may mean; of those over budget the cheapest is nearest to it."""
    fits = all(hold(judged.priced, budget) == "within" for budget in question.budgets)
    worth = judged.miou if fits else -expense(judged.priced, question.budgets)[0]
    return is_eligible, fits, -tier(judged), worth


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


def _remedy(question: Question, mine: Judged, first: Recommended | None, is_eligible: bool) -> tuple[str, str]:
    """What would put it first, and the line that trains it where that takes a better score."""
    steps = [] if is_eligible else ["the filter left out"]
    for budget in question.budgets:
        quantity = mine.priced.costs.get(budget.kind)
        if quantity is not None and hold(mine.priced, budget) != "within":
            needed = describe(budget.kind, worst(quantity, budget.is_floor), question.convention)
            steps.append(f"a budget of {needed}, if nothing else that fits it is better")
            return "; ".join(steps), ""  # the score that it then has to reach is that of another answer
    if first is None:
        return "; ".join(steps), ""
    steps.append(f"an own run above {first.prediction.miou_percent:.1f} mIoU")
    return "; ".join(steps), training_command(question, mine.priced.candidate)
