"""The loop of one process: batches, steps, validations, checkpoints, until the end or a request to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal, Protocol

from luma_cli.data.loader import Batch, Skipped
from luma_cli.errors import CheckpointError
from luma_cli.store.records import EvaluationRecord
from luma_cli.train import events
from luma_cli.train.step import Stepped, Trainer

End = Literal["finished", "stopped"]


class Keeper(Protocol):
    """Who keeps what happens: the first process in files and rows, the others nowhere."""

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Keep the numbers of a step, counted from 1."""

    def checkpoint(self, step: int, *, best: bool) -> None:
        """Keep the whole state after `step` steps. Raises CheckpointError when it cannot be written."""

    def evaluated(self, step: int, record: EvaluationRecord) -> bool:
        """Keep a validation; whether it is the best of the run."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Steps of the run, between validations (0: at the end alone) and between checkpoints."""

    num_steps: int
    evaluation_steps: int
    checkpoint_steps: int

    def evaluates(self, step: int) -> bool:
        """Whether the model after `step` steps is validated."""
        return step == self.num_steps or (step > 0 and self.evaluation_steps > 0 and step % self.evaluation_steps == 0)

    @property
    def num_evaluations(self) -> int:
        """How many validations the whole run has."""
        every = self.evaluation_steps or self.num_steps
        return -(-self.num_steps // every)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows `step` steps, validated or not."""
        return step > 0 and (step % self.checkpoint_steps == 0 or self.evaluates(step))


@dataclass(slots=True)
class Session:
    """A training from `step` on.

    feed: batches from a step on. step_images: of a step, over all processes. validate: scores the model after a step
    on the validation split; None when it was stopped. evaluated: steps that are validated already. saved: step of the
    newest checkpoint, 0 for none. stops: whether a signal asked this process to stop.
    """

    trainer: Trainer
    feed: Callable[[int], Generator[Batch]]
    validate: Callable[[int], EvaluationRecord | None]
    keeper: Keeper
    rhythm: Rhythm
    stops: Callable[[], bool]
    on_event: events.OnEvent
    memory_bytes: Callable[[], int]
    step_images: int
    step: int = 0
    saved: int = 0
    skipped: Skipped = field(default_factory=lambda: Skipped(0))
    evaluated: set[int] = field(default_factory=set)
    clock: Callable[[], float] = time.perf_counter

    def run(self) -> End:
        """Train to the end or until a stop, with a checkpoint there. Raises Diverged, DataError, CheckpointError."""
        with closing(self.feed(self.step)) as feed:
            while self._validated():
                if self.step >= self.rhythm.num_steps:
                    return "finished"
                if not self._trained(feed):
                    break
        if self.saved != self.step or not self.step:  # before the first step too: the run can then be resumed
            self.keeper.checkpoint(self.step, best=False)
        return "stopped"

    def _trained(self, feed: Iterator[Batch]) -> bool:
        """One step; False, with nothing changed, when the processes were asked to stop."""
        start = self.clock()
        batch = next(feed)
        for name in self.skipped.add(batch.skipped):
            self.on_event(events.Noted(f"left out as it cannot be used: {name}"))
        done = self.trainer.step(batch, self.stops)
        if done is None:
            return False
        self.step += 1
        self._tell(done, batch.epoch, self.step_images / (self.clock() - start))
        return True

    def _validated(self) -> bool:
        """Validate and save where it is due; False when the validation was stopped, to be done by the resumed run."""
        best = False
        due = self.rhythm.evaluates(self.step) and self.step not in self.evaluated
        if due:
            record = self.validate(self.step)
            if record is None:
                return False
            self.evaluated.add(self.step)
            best = self.keeper.evaluated(self.step, record)
            self.on_event(events.Evaluated(self.step, record, best))
        if due or (self.rhythm.saves(self.step) and self.saved != self.step):
            self._save(best)
        return True

    def _save(self, best: bool) -> None:
        """Keep a checkpoint. One in the middle that cannot be written is told and tried again; the last one raises."""
        try:
            self.keeper.checkpoint(self.step, best=best)
            self.saved = self.step
        except CheckpointError as error:
            if self.step == self.rhythm.num_steps:
                raise
            self.on_event(events.Noted(f"no checkpoint: {error}"))

    def _tell(self, done: Stepped, epoch: int, images_per_second: float) -> None:
        metrics = metrics_of(done)
        self.keeper.step(self.step, metrics)
        self.on_event(
            events.Stepped(
                step=self.step,
                num_steps=self.rhythm.num_steps,
                epoch=epoch,
                metrics=metrics,
                images_per_second=images_per_second,
                memory_bytes=self.memory_bytes(),
                skipped=done.skipped,
            )
        )


def metrics_of(done: Stepped) -> dict[str, float]:
    """The numbers of a step by the names that the store has for them."""
    return {
        "loss": done.loss,
        "loss_bce": done.bce,
        "loss_dice": done.dice,
        "loss_class": done.classes,
        "lr": done.lr,
        "grad_norm": done.gradient_norm,
    }
