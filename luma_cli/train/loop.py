"""The loop of one process: batches, steps, validations, checkpoints, until the end or a request to stop.

It tells whoever watches by events, and keeps what must last in the book.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import torch

from luma_cli.data.loader import Batch
from luma_cli.errors import CheckpointError
from luma_cli.evaluate.evaluation import EvalSettings, check_skipped, evaluate, evaluation_record
from luma_cli.evaluate.metrics import Counts, merge
from luma_cli.store.records import EvaluationRecord
from luma_cli.train.batch_norm import batch_norms
from luma_cli.train.book import Book
from luma_cli.train.prepare import Run, peak_bytes

_MOST_CHECKPOINT_STEPS = 1000
# The loss falls when the mean of the last ten of the first hundred steps is below this share of that of the first ten.
_JUDGED, _MEANT, _FALLEN = 100, 10, 0.95

End = Literal["finished", "stopped"]


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


class _Stopped(Exception):
    """A signal asked to stop in the middle of a validation."""


def not_falling(losses: Sequence[float]) -> str:
    """What to tell of the losses of the first hundred steps; empty where they fall, or before there are so many."""
    if len(losses) != _JUDGED:
        return ""
    first, last = (sum(part) / _MEANT for part in (losses[:_MEANT], losses[-_MEANT:]))
    if last < _FALLEN * first:
        return ""
    return (
        f"the loss does not fall: {first:.3g} in the first {_MEANT} steps, {last:.3g} in steps "
        f"{_JUDGED - _MEANT + 1} to {_JUDGED}; try another learning rate (--set lr=...), and look at the labels "
        "(`luma data check`)"
    )


@dataclass(slots=True)
class Loop:
    """A training from the run's step on. stops: whether a signal asked this process to stop."""

    run: Run
    book: Book
    stops: Callable[[], bool]
    on_event: OnEvent
    losses: list[float] = field(default_factory=list)

    def train(self) -> End:
        """Train to the end or until a stop, with a checkpoint there. Raises Diverged, DataError, CheckpointError."""
        run, saved = self.run, self.run.step
        checkpoint_steps = self.book.settings.checkpoint_steps or min(run.order.steps_per_epoch, _MOST_CHECKPOINT_STEPS)
        with closing(run.batches(run.num_steps)) as batches:
            while True:
                due = run.step not in run.scores and _is_validated(run)
                best = self._validated() if due else False
                if best is None:
                    break
                # The validation comes first: a checkpoint says whether it is the best.
                if due or (saved != run.step and (run.step % checkpoint_steps == 0 or _is_validated(run))):
                    saved = run.step if self._saved(best) else saved
                if run.is_done:
                    return "finished"
                if not self._stepped(batches):
                    break
        if saved != run.step or not run.step:  # before the first step too: the run can then be resumed
            self._checkpoint(best=False)
        return "stopped"

    def _stepped(self, batches: Iterator[Batch]) -> bool:
        """One step; False, with nothing changed, when the processes were asked to stop."""
        run, start = self.run, time.perf_counter()
        batch = next(batches)
        for name in run.skipped.add(batch.skipped):
            self.on_event(Noted(f"left out as it cannot be used: {name}"))
        done = run.trainer.step(batch, self.stops)
        if done is None:
            return False
        run.step += 1
        speed = run.order.step_size / (time.perf_counter() - start)
        self.book.step(done.metrics)
        if run.step == len(self.losses) + 1 <= _JUDGED:  # of a run that this session began
            self.losses.append(done.metrics["loss"])
            if said := not_falling(self.losses):
                self.on_event(Noted(said))
        memory_bytes = peak_bytes(run.trainer.device)
        self.on_event(
            Stepped(run.step, run.num_steps, batch.epoch, done.metrics, speed, memory_bytes, skipped=done.skipped)
        )
        return True

    def _validated(self) -> bool | None:
        """Whether the model is the best so far; None when the validation was stopped, for the resumed run to do."""
        record = self._validation()
        if record is None:
            return None
        best = self.book.evaluated(record)
        self.on_event(Evaluated(self.run.step, record, best))
        return best

    def _saved(self, best: bool) -> bool:
        """Whether a checkpoint was written. One in the middle that cannot be is told; the last one raises."""
        try:
            self._checkpoint(best=best)
        except CheckpointError as error:
            if self.run.step == self.run.num_steps:
                raise
            self.on_event(Noted(f"no checkpoint: {error}"))
            return False
        return True

    def _checkpoint(self, *, best: bool) -> None:
        if (path := self.book.checkpoint(best=best)) is not None:
            self.on_event(Saved(self.run.step, str(path)))

    def _validation(self) -> EvaluationRecord | None:
        """The score of the model, made by all processes together; None when one of them was asked to stop.

        Averaged weights are scored where there are some, with the run's own crop as the window. Raises BadSample for an
        image that cannot be read.
        """
        run, start = self.run, time.perf_counter()
        processes = run.trainer.processes
        norms = batch_norms(run.trainer.segmenter)  # each process counts its own statistics, the first one's are kept
        processes.take_first(buffer for norm in norms for buffer in norm.buffers(recurse=False))
        found = processes.from_all(self._counts())
        counts = [each for each in found if each is not None]
        if len(counts) < len(found):
            return None
        merged = merge(counts)
        check_skipped(merged.skipped, run.config.skip_bad)
        return evaluation_record(
            merged,
            run.val.table,
            resolution=run.config.resolution,
            data=run.val.identity,
            split="val",
            seconds=time.perf_counter() - start,
            dtype=run.facts["dtype"],
            macs_per_window=run.macs_per_window,
            run_id=run.run_id,
            step=run.step,
            evaluated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _counts(self) -> Counts | None:
        run, trainer = self.run, self.run.trainer

        def seen(done: int, total: int) -> None:
            self.on_event(Evaluating(run.step, done, total))
            if self.stops():
                raise _Stopped

        try:
            with trainer.ema.swapped(trainer.segmenter) if trainer.ema else nullcontext():
                return evaluate(
                    trainer.segmenter,
                    run.val,
                    EvalSettings(run.config.resolution, batch=trainer.micro_batch, skip_bad=run.config.skip_bad),
                    dtype=trainer.autocast or torch.float32,
                    rank=trainer.processes.rank,
                    num_ranks=trainer.processes.num,
                    num_workers=run.num_workers,
                    on_image=seen,
                )
        except _Stopped:
            return None


def _is_validated(run: Run) -> bool:
    """Whether the model after the run's steps is to be validated: at the end, and every so many steps."""
    return run.step == run.num_steps or (run.step > 0 and run.step % run.evaluation_steps == 0)
