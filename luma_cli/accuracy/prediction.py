"""A predicted mIoU with its intervals, what it rests on, and the model that gives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from luma_cli.accuracy.subject import Subject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # mIoU in percent, one row per joint posterior draw, one column per subject.
    Draws = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Effect:
    """What one property of a subject contributes, in mIoU points against the average, for `--why`.

    name: e.g. `pretraining dinov3`, `size 86.6 M`. sd_points: one standard deviation of it.
    """

    name: str
    points: float
    sd_points: float


Relation = Literal["these weights", "same architecture and objective", "same architecture", "same series"]


@dataclass(frozen=True, slots=True)
class Support:
    """How many rows of each provenance speak about these weights or, failing any, their closest relatives.

    ids: of those rows, on this dataset, nearest protocol first. relation: whom they are about.
    """

    own_runs: int
    published_luma: int
    other_heads: int
    ids: tuple[str, ...] = ()
    relation: Relation = "these weights"

    @property
    def line(self) -> str:
        """e.g. `2 own runs, 5 LUMA facts, 11 other-head facts`, of whom they are where not of these weights."""
        parts = (
            (self.own_runs, "own run", "own runs"),
            (self.published_luma, "LUMA fact", "LUMA facts"),
            (self.other_heads, "other-head fact", "other-head facts"),
        )
        said = [f"{count} {one if count == 1 else many}" for count, one, many in parts if count]
        if not said:
            return "no evidence about its series on this dataset"
        if self.relation == "these weights":
            return ", ".join(said)
        about = self.relation.removeprefix("same ")
        return f"none of these weights; {', '.join(said)} of the same {about}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """mIoU of one subject in percent: posterior median, central 50, 80 and 90 % intervals, standard deviation.

    The intervals are of one training run (seed noise included). extrapolated: outside the hull of the evidence in size
    and tokens, or of a family, objective or dataset without evidence; reason says which, and is empty otherwise.
    """

    miou_percent: float
    interval_50: tuple[float, float]
    interval_80: tuple[float, float]
    interval_90: tuple[float, float]
    sd: float
    support: Support
    extrapolated: bool = False
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Fields as `luma estimate --json` prints them."""
        return {
            "miou": self.miou_percent,
            "miou_50": list(self.interval_50),
            "miou_80": list(self.interval_80),
            "miou_90": list(self.interval_90),
            "evidence": self.support.line,
            "extrapolated": self.extrapolated,
            "reason": self.reason or None,
        }


class AccuracyModel(Protocol):
    """Predicts mIoU; `luma_cli.accuracy.model.load_model(evidence)` gives one."""

    @property
    def scale_note(self) -> str:
        """What the level of LUMA stands on, e.g. `on the EoMT scale, no LUMA run seen`."""
        ...

    def predict(self, subjects: Sequence[Subject]) -> list[Prediction]:
        """One prediction per subject, in order."""
        ...

    def draws(self, subjects: Sequence[Subject], num_draws: int = 2000, seed: int = 0) -> Draws:
        """Joint posterior draws [num_draws, subjects] of the expected mIoU, no seed noise; shared effects correlate."""
        ...

    def effects(self, subject: Subject) -> list[Effect]:
        """What each property contributes, largest first."""
        ...
