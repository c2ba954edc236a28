"""The score of a model in training on the validation split, made by all processes together."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from luma_cli.data.split import Split
from luma_cli.evaluate.evaluation import EvalSettings, check_skipped, evaluate, evaluation_record
from luma_cli.evaluate.metrics import Counts, merge
from luma_cli.store.records import EvaluationRecord
from luma_cli.train import events
from luma_cli.train.batch_norm import batch_norms
from luma_cli.train.step import Trainer


class _Stopped(Exception):
    """A signal asked to stop in the middle."""


@dataclass(frozen=True, slots=True)
class Validation:
    """How a run scores itself: averaged weights where it has them, its own crop as the window, no skipped images."""

    trainer: Trainer
    split: Split
    run_id: str
    resolution: int
    macs_per_window: int | None
    num_workers: int
    stops: Callable[[], bool]
    on_event: events.OnEvent
    skip_bad: int = 0

    def __call__(self, step: int) -> EvaluationRecord | None:
        """The record of the model after `step` steps; None, in every process, when one of them was asked to stop.

        Raises BadSample for an image that cannot be read.
        """
        start = time.perf_counter()
        processes = self.trainer.processes
        norms = batch_norms(self.trainer.segmenter)  # each process counts its own statistics, the first one's are kept
        processes.take_first(buffer for norm in norms for buffer in norm.buffers(recurse=False))
        found = processes.from_all(self._counts(step))
        counts = [each for each in found if each is not None]
        if len(counts) < len(found):
            return None
        merged = merge(counts)
        check_skipped(merged.skipped, self.skip_bad)
        return evaluation_record(
            merged,
            self.split.table,
            resolution=self.resolution,
            data=self.split.identity,
            split="val",
            seconds=time.perf_counter() - start,
            dtype=str(self._dtype()).removeprefix("torch."),
            macs_per_window=self.macs_per_window,
            run_id=self.run_id,
            step=step,
            evaluated_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _dtype(self) -> torch.dtype:
        return self.trainer.autocast or torch.float32

    def _counts(self, step: int) -> Counts | None:
        trainer, processes = self.trainer, self.trainer.processes

        def seen(done: int, total: int) -> None:
            self.on_event(events.Evaluating(step, done, total))
            if self.stops():
                raise _Stopped

        averaged = trainer.ema.swapped(trainer.segmenter) if trainer.ema else nullcontext()
        try:
            with averaged:
                return evaluate(
                    trainer.segmenter,
                    self.split,
                    EvalSettings(self.resolution, batch=trainer.micro_batch, skip_bad=self.skip_bad),
                    dtype=self._dtype(),
                    rank=processes.rank,
                    num_ranks=processes.num,
                    num_workers=self.num_workers,
                    on_image=seen,
                )
        except _Stopped:
            return None
