"""What a training tells whoever watches it. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from luma_cli.store.records import EvaluationRecord


@dataclass(frozen=True, slots=True)
class Started:
    """The loop begins at `step` of `num_steps`. facts: what was decided for this machine, in order, as text."""

    run_id: str
    folder: str
    step: int
    num_steps: int
    facts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Stepped:
    """An optimiser step is done; `step` counts them. metrics: loss, loss_bce, loss_dice, loss_class, lr, grad_norm.

    skipped: the update was left out, as the gradient was not finite. memory_bytes: peak of the device so far, 0 where
    it is not known.
    """

    step: int
    num_steps: int
    epoch: int
    metrics: dict[str, float]
    images_per_second: float
    memory_bytes: int
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Evaluating:
    """`done` of `total` images of the validation split of this process are read."""

    step: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The validation after `step`; best: its mIoU is the highest of the run so far."""

    step: int
    record: EvaluationRecord
    best: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint is complete on disk."""

    step: int
    path: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that the user should know, one line."""

    text: str


Event = Started | Stepped | Evaluating | Evaluated | Saved | Noted
OnEvent = Callable[[Event], None]
