"""What stands behind a front in its picture: every candidate, and the whole attainment band."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luma_cli.accuracy.model import load_model
from luma_cli.advise.attainment import attainment
from luma_cli.advise.axis import axis_kind, place
from luma_cli.advise.chances import NUM_DRAWS
from luma_cli.advise.learned_front import has_evidence
from luma_cli.advise.question import Question
from luma_cli.advise.setting import Fit, load
from luma_cli.advise.subjects import subject
from luma_cli.units import FLOORS


@dataclass(frozen=True, slots=True)
class Backdrop:
    """Costs in the kind's own unit with mIoU in percent.

    candidates: cost and predicted mIoU of each with evidence. band: cost, and the mIoU that is reached there with each
    probability of `attainment.LEVELS`; from the cheapest on, only where it rises.
    """

    candidates: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, tuple[float, ...]], ...]


def backdrop(
    question: Question,
    axis: str = "gflops",
    *,
    only_own: bool = False,
    database: Path | None = None,
    fit: Fit = load_model,
) -> Backdrop:
    """What `front_of` with the same arguments chose its front from; the costs at their central values."""
    kind = axis_kind(axis)
    setting = load(question, (kind,), database, fit)
    pool = setting.only_own().pool if only_own else setting.pool
    placed = [each for each in pool if not math.isnan(place(each, kind))]
    subjects = [subject(each.candidate, question.dataset, question.head) for each in placed]
    predicted = setting.model.predict(subjects) if subjects else []
    known = [at for at, found in enumerate(predicted) if has_evidence(found)]
    if not known:
        return Backdrop((), ())
    places = [place(placed[at], kind) for at in known]
    reached = attainment(places, setting.model.draws([subjects[at] for at in known], NUM_DRAWS))
    rises = [0, *(np.flatnonzero(np.any(np.diff(reached.miou, axis=1) > 0, axis=0)) + 1)]
    back = (lambda value: 1 / value) if kind in FLOORS else float
    return Backdrop(
        tuple((back(at), predicted[index].miou_percent) for at, index in zip(places, known, strict=True)),
        tuple((back(float(reached.costs[at])), tuple(reached.miou[:, at].tolist())) for at in rises),
    )
