"""What a run keeps: numbers in the store, checkpoints in its folder. The first process writes, all take part."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from luma_cli.data.loader import Skipped, StepOrder
from luma_cli.errors import StoreError
from luma_cli.store.database import open_write
from luma_cli.store.records import EvaluationRecord, RunStatus
from luma_cli.store.runs import MIOU, save_evaluation, update_run
from luma_cli.train import events
from luma_cli.train.checkpoint import CheckpointState, save_checkpoint
from luma_cli.train.config import RunConfig
from luma_cli.train.metrics_log import MetricLog
from luma_cli.train.processes import random_state
from luma_cli.train.run_folder import RunFolder
from luma_cli.train.step import Trainer


@dataclass(slots=True)
class Records:
    """Where the first process writes: the run's folder, the database file (None: the usual one), its curves."""

    folder: RunFolder
    database: Path | None
    log: MetricLog
    keep: int


@dataclass(slots=True)
class Book:
    """Keeps a run. records: None in all processes but the first.

    scores: mIoU in percent by validated step. skipped: bad samples met so far. seconds: trained before this session.
    begun: when this session began, by `clock`.
    """

    config: RunConfig
    run_id: str
    trainer: Trainer
    order: StepOrder
    records: Records | None
    on_event: events.OnEvent
    skipped: Skipped
    seconds: float = 0.0
    scores: dict[int, float | None] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    begun: float = 0.0

    def step(self, step: int, metrics: dict[str, float]) -> None:
        """Keep the numbers of a step, counted from 1."""
        if self.records:
            self.records.log.add(step, {f"train/{name}": value for name, value in metrics.items()})

    def evaluated(self, step: int, record: EvaluationRecord) -> bool:
        """Keep a validation; whether it is the best of the run. Raises StoreError."""
        miou = record.miou_percent
        best = miou is not None and all(other is None or miou > other for other in self.scores.values())
        self.scores[step] = miou
        if self.records:
            with closing(open_write(self.records.database)) as db:
                save_evaluation(db, record)
            if miou is not None:
                self.records.log.add(step, {MIOU: miou}, always=True)
        return best

    def checkpoint(self, step: int, *, best: bool) -> None:
        """Keep the whole state after `step` steps, and before it the numbers that it will go on from.

        Raises CheckpointError when it cannot be written, StoreError, after it was, when the numbers cannot, DataError
        when all processes together have met too many bad samples.
        """
        processes = self.trainer.processes
        randoms = processes.from_all(random_state(self.trainer.device))
        for names in processes.from_all(self.skipped.names):
            self.skipped.add(names)
        if self.records is None:
            return
        with suppress(StoreError):  # the rows wait, and are tried again below
            self.records.log.flush()
        path = save_checkpoint(
            self.records.folder, self._state(step, tuple(randoms)), keep=self.records.keep, best=best
        )
        self.records.log.flush()
        self.tell(step=step)
        self.on_event(events.Saved(step, str(path)))

    def tell(
        self, *, step: int, status: RunStatus = "running", reason: str = "", facts: Mapping[str, Any] | None = None
    ) -> None:
        """Keep how the run stands. Raises StoreError."""
        if self.records:
            with closing(open_write(self.records.database)) as db:
                update_run(
                    db, self.run_id, status=status, reason=reason, step=step, seconds=self.spent(), facts=facts or {}
                )

    def spent(self) -> float:
        """Seconds trained so far, over all sessions."""
        return self.seconds + self.clock() - self.begun

    def _state(self, step: int, randoms: tuple[dict[str, object], ...]) -> CheckpointState:
        trainer = self.trainer
        epoch, in_epoch = divmod(step, self.order.steps_per_epoch)
        scored = [miou for miou in self.scores.values() if miou is not None]
        return CheckpointState(
            run_id=self.run_id,
            config=self.config,
            step=step,
            epoch=epoch,
            position=in_epoch * self.order.step_size,
            model=trainer.segmenter.state_dict(),
            optimizer=trainer.optimizer.state_dict(),
            ema=trainer.ema.weights(trainer.segmenter) if trainer.ema else None,
            scaler=trainer.scaler.state_dict() if trainer.scaler else {},
            random=randoms,  # type: ignore[arg-type]
            best_miou_percent=max(scored, default=None),
            seconds=self.spent(),
            extra={
                "watch": trainer.watch.state(),
                "scores": {str(key): value for key, value in self.scores.items()},
                "skipped": list(self.skipped.names),
                "ema_updates": trainer.ema.num_updates if trainer.ema else 0,
            },
        )
