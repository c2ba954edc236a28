"""`luma compare`: backbones side by side: cost, speed, mIoU, licence, evidence, and which one is likely better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import Effect
from luma_cli.advise.candidates import Candidate, scale_note
from luma_cli.advise.fronts import NUM_DRAWS
from luma_cli.advise.question import Priced, Question
from luma_cli.advise.recommend import Recommended
from luma_cli.advise.setting import Fit, Judged, load, predicted
from luma_cli.errors import UnknownName, UsageError
from luma_cli.units import BudgetKind

_USUAL = {"ade20k": 512, "cityscapes": 1024}
_DEVICE_KINDS: tuple[BudgetKind, ...] = ("ms", "bytes")
CLEAR, LIKELY = 0.9, 0.65


@dataclass(frozen=True, slots=True)
class Pair:
    """Two of the compared, by index, the likely better one first. chance: share of joint draws in which it is better.

    points: expected difference in mIoU. reason: the effect in which they differ most, empty where they hardly do.
    """

    better: int
    worse: int
    chance: float
    points: float
    reason: str

    @property
    def verdict(self) -> str:
        """How sure it is: `better`, `likely better` or `as good as can be told`."""
        return "better" if self.chance >= CLEAR else "likely better" if self.chance >= LIKELY else "a tie"


@dataclass(frozen=True, slots=True)
class Comparison:
    """rows: in the order asked for. kinds: of costs that depend on a device, empty without one."""

    question: Question
    rows: tuple[Recommended, ...]
    pairs: tuple[Pair, ...]
    kinds: tuple[BudgetKind, ...]
    scale_note: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Schema 1."""
        names = [row.candidate.name for row in self.rows]
        return {
            "schema": 1,
            "dataset": self.question.dataset,
            "head": self.question.head,
            "device": self.question.device,
            "scale": self.scale_note,
            "compared": [row.to_json(self.question) for row in self.rows],
            "pairs": [
                {
                    "better": names[each.better],
                    "worse": names[each.worse],
                    "p_better": each.chance,
                    "miou_points": each.points,
                    "verdict": each.verdict,
                    "reason": each.reason or None,
                }
                for each in self.pairs
            ],
            "notes": list(self.notes),
        }


def compare(
    question: Question, names: Sequence[str], database: Path | None = None, fit: Fit = load_model
) -> Comparison:
    """The backbones of these names at one size, 512 px on ADE20K and 1024 px on Cityscapes unless the question has one.

    Raises UsageError for fewer than two names or several sizes, UnknownName with the nearest names.
    """
    distinct = list(dict.fromkeys(names))
    if len(distinct) < 2:
        raise UsageError(f"{len(distinct)} backbone is given, expected two or more: luma compare vit_b.dinov3 swin_b")
    sizes = question.resolutions or (_USUAL[question.dataset],)
    if len(sizes) > 1:
        raise UsageError(f"--res is {' and '.join(map(str, sizes))}, expected one size to compare at")
    kinds = _DEVICE_KINDS if question.device else ()
    setting = load(question, (*kinds, "macs"), database, fit)
    pool = [each for each in setting.pool if each.candidate.resolution == sizes[0]]
    judged = predicted(question, [_named(name, pool) for name in distinct], setting.model)
    windows = question.windows(sizes[0])
    rows = tuple(Recommended(at, each.priced, each.prediction, windows) for at, each in enumerate(judged, 1))
    drawn = np.asarray(setting.model.draws([each.subject for each in judged], NUM_DRAWS))
    effects = [setting.model.effects(each.subject) for each in judged]
    pairs = [
        _pair(one, other, judged, drawn, effects) for one in range(len(judged)) for other in range(one + 1, len(judged))
    ]
    return Comparison(
        question, rows, tuple(pairs), kinds, scale_note(setting.model, question.head), tuple(setting.notes)
    )


def _named(name: str, pool: Sequence[Priced]) -> Priced:
    """The candidate of that name; of a card without pretraining the one trained on labels, else the first."""
    found = [each for each in pool if name in _names(each.candidate)] or [
        each for each in pool if each.candidate.name.partition(".")[0] == name
    ]
    if not found:
        known = sorted({each.candidate.name for each in pool})
        near = get_close_matches(name, sorted({*known, *(each.partition(".")[0] for each in known)}), 3, 0.6)
        hint = f"nearest: {', '.join(near)}" if near else "luma list shows all"
        raise UnknownName(f"backbone {name!r} is not known; {hint}")
    labelled = [each for each in found if each.candidate.pretraining.startswith("supervised")]
    return (labelled or found)[0]


def _names(candidate: Candidate) -> set[str]:
    return {candidate.name, candidate.timm_name, candidate.title}


def _pair(
    one: int, other: int, judged: Sequence[Judged], drawn: np.ndarray[Any, Any], effects: Sequence[Sequence[Effect]]
) -> Pair:
    chance = float((drawn[:, one] > drawn[:, other]).mean())
    better, worse = (one, other) if chance >= 0.5 else (other, one)
    points = judged[better].miou - judged[worse].miou
    by_name = {each.name: each.points for each in effects[worse]}
    gaps = {
        each.name: each.points - by_name.get(each.name, 0.0)
        for each in effects[better]
        if each.name != "head and protocol"
    }
    name = max(gaps, key=lambda each: gaps[each], default="")
    reason = f"mainly {name} ({gaps[name]:+.1f})" if name and gaps[name] > 0.3 else ""
    return Pair(better, worse, max(chance, 1 - chance), points, reason)
