"""What a run keeps: its row and its numbers in the store, checkpoints in its folder. The first process alone writes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from luma_cli.catalogue.names import resolve
from luma_cli.errors import StoreError, UsageError
from luma_cli.measure import devices
from luma_cli.store.database import StoreWarning, open_write
from luma_cli.store.records import EvaluationRecord, RunRecord, RunStatus
from luma_cli.store.runs import (
    MIOU,
    MetricRow,
    delete_run,
    forget_after,
    save_evaluation,
    save_metrics,
    start_run,
    update_run,
)
from luma_cli.train import run_folder
from luma_cli.train.checkpoint import CheckpointState, random_state, save_checkpoint
from luma_cli.train.config import Settings
from luma_cli.train.prepare import Run
from luma_cli.train.run_folder import RunFolder

# Steps of a run that are kept; of a longer one every k-th.
MOST_STEPS = 5_000
_SECONDS = 5.0


@dataclass(slots=True)
class Book:
    """Keeps a run. folder and log: None in all processes but the first. begun: start of this session, monotonic."""

    run: Run
    settings: Settings
    folder: RunFolder | None = None
    log: MetricLog | None = None
    begun: float = field(default_factory=time.monotonic)

    def step(self, metrics: Mapping[str, float]) -> None:
        """Keep the numbers of the step that was just done."""
        if self.log:
            self.log.add(self.run.step, {f"train/{name}": value for name, value in metrics.items()})

    def evaluated(self, record: EvaluationRecord) -> bool:
        """Keep a validation; whether it is the best of the run. Raises StoreError."""
        miou, scores = record.miou_percent, self.run.scores
        best = miou is not None and all(other is None or miou > other for other in scores.values())
        scores[self.run.step] = miou
        if self.log:
            with closing(open_write(self.settings.database)) as db:
                save_evaluation(db, record)
            if miou is not None:
                self.log.add(self.run.step, {MIOU: miou}, always=True)
        return best

    def checkpoint(self, *, best: bool) -> Path | None:
        """Keep the whole state, and before it the numbers that it goes on from. Gives its path in the first process.

        Raises CheckpointError when it cannot be written, StoreError, after it was, when the numbers cannot, DataError
        when all processes together have met too many bad samples.
        """
        processes, skipped = self.run.trainer.processes, self.run.skipped
        randoms = processes.from_all(random_state(self.run.trainer.device))
        for names in processes.from_all(skipped.names):
            skipped.add(names)
        if self.folder is None or self.log is None:
            return None
        # Numbers first: a kill between the two would leave a gap that no resumed run fills.
        with suppress(StoreError):  # the rows wait, and are tried again below
            self.log.flush()
        path = save_checkpoint(self.folder, self._state(tuple(randoms)), keep=self.settings.keep or 2, best=best)
        self.log.flush()
        self.status("running")
        return path

    def status(self, status: RunStatus, reason: str = "", facts: Mapping[str, Any] | None = None) -> None:
        """Keep how far the run is and how it ended. Raises StoreError."""
        if self.folder:
            run, seconds = self.run, self._spent()
            with closing(open_write(self.settings.database)) as db:
                update_run(
                    db, run.run_id, status=status, reason=reason, step=run.step, seconds=seconds, facts=facts or {}
                )

    def _spent(self) -> float:
        """Seconds trained so far, over all sessions."""
        return self.run.seconds + time.monotonic() - self.begun

    def _state(self, randoms: tuple[dict[str, Any], ...]) -> CheckpointState:
        run, trainer = self.run, self.run.trainer
        epoch, in_epoch = divmod(run.step, run.order.steps_per_epoch)
        return CheckpointState(
            run_id=run.run_id,
            config=run.config,
            step=run.step,
            epoch=epoch,
            position=in_epoch * run.order.step_size,
            model=trainer.segmenter.state_dict(),
            optimizer=trainer.optimizer.state_dict(),
            ema=trainer.ema.weights(trainer.segmenter) if trainer.ema else None,
            scaler=trainer.scaler.state_dict() if trainer.scaler else {},
            random=randoms,
            best_miou_percent=max((score for score in run.scores.values() if score is not None), default=None),
            seconds=self._spent(),
            extra={
                "watch": trainer.watch.state(),
                "scores": {str(key): value for key, value in run.scores.items()},
                "skipped": list(run.skipped.names),
                "ema_updates": trainer.ema.num_updates if trainer.ema else 0,
            },
        )


@contextmanager
def opened(run: Run, settings: Settings) -> Iterator[Book]:
    """The book of a run; the first process holds its folder and its row meanwhile. Raises RunError, StoreError."""
    book = Book(run, settings)
    if not run.trainer.processes.is_first:
        yield book
        return
    with ExitStack() as stack:
        unborn = ""
        if run.is_resumed:
            book.folder = stack.enter_context(run_folder.resumed(run.folder))
        else:
            unborn = run_folder.without_checkpoint(run.folder)
            book.folder = stack.enter_context(run_folder.started(run.folder, run.run_id, run.config))
        with closing(open_write(settings.database)) as db:
            if unborn:
                delete_run(db, unborn)
            start_run(db, _record(run, book.folder))
            forget_after(db, run.run_id, run.step)
        sink = TensorBoard(book.folder.path / "tensorboard", run.step) if settings.tensorboard else None
        book.log = MetricLog(settings.database, run.run_id, run.num_steps, sink=sink)
        stack.push(partial(_close, book.log))
        yield book


def _close(log: MetricLog, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
    """Write the last numbers. Raises StoreError, unless the run ends by an error of its own."""
    with suppress(StoreError) if error else nullcontext():
        log.close()


def _record(run: Run, folder: RunFolder) -> RunRecord:
    config = run.config
    spec = resolve(config.backbone, imported=bool(config.imports))
    return RunRecord(
        run_id=run.run_id,
        folder=str(folder.path),
        config=replace(config, card={}).to_json(),  # the folder has the card
        environment=devices.here(devices.find(run.trainer.device.type)),
        backbone=config.backbone,
        timm_name=spec.timm_name,
        pretraining=spec.pretraining if config.weights == "pretrained" else "",
        weights=config.weights,
        resolution=config.resolution,
        head=config.head.name,
        dataset=run.train.identity,
        recipe=run.recipe_name,
        seed=config.seed,
        num_steps=run.num_steps,
        batch=run.order.step_size,
        num_processes=run.trainer.processes.num,
        step=run.step,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        facts=run.facts,
    )


def every(num_steps: int) -> int:
    """k, where every k-th step of a run of `num_steps` is kept: a matter of the step's number, so that a resumed run
    keeps the same ones.

    >>> every(5_000), every(39_000)
    (1, 8)
    """
    return max(1, -(-num_steps // MOST_STEPS))


class MetricLog:
    """Takes numbers at each step and writes them to the database `file`, at most every `seconds` seconds.

    The database is opened for each writing: no connection is open while loader workers are forked. When it cannot be
    written on the way, training goes on: StoreWarning is given once and the numbers are written later; `flush` and
    `close` raise StoreError. sink: gets the same numbers.
    """

    def __init__(
        self,
        file: str | Path | None,
        run_id: str,
        num_steps: int,
        *,
        sink: TensorBoard | None = None,
        seconds: float = _SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._run_id, self._every, self._sink = file, run_id, every(num_steps), sink
        self._seconds, self._clock = seconds, clock
        self._rows: list[MetricRow] = []
        self._written = clock()
        self._warned = False

    def add(self, step: int, values: Mapping[str, float], *, always: bool = False) -> None:
        """Takes the numbers of the state after `step` steps, by name, e.g. `train/loss`; `always`: of an evaluation."""
        if not always and step % self._every:
            return
        for name, value in values.items():
            self._rows.append((step, name, float(value)))
            if self._sink is not None:
                self._sink.add(step, name, float(value))
        if self._clock() - self._written < self._seconds:
            return
        try:
            self.flush()
        except StoreError as error:
            if not self._warned:
                warnings.warn(f"the numbers of the run wait: {error}", StoreWarning, stacklevel=2)
            self._warned = True

    def flush(self) -> None:
        """Writes what was taken: at a checkpoint, before it, and at the end. Raises StoreError."""
        self._written = self._clock()
        if self._rows:
            with closing(open_write(self._file)) as db:
                save_metrics(db, self._run_id, self._rows)
            self._rows = []
        if self._sink is not None:
            self._sink.flush()

    def close(self) -> None:
        """Writes the rest. Raises StoreError."""
        try:
            self.flush()
        finally:
            if self._sink is not None:
                self._sink.close()


class TensorBoard:
    """Writes numbers as event files into `folder`; a run resumed from `step` hides later events.

    TensorBoard is optional: `pip install "luma-seg[log]"`.
    """

    def __init__(self, folder: Path, resumed_step: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError('--tensorboard needs TensorBoard: pip install "luma-seg[log]", or leave it out') from error
        purge = None if resumed_step is None else resumed_step + 1
        self._writer = SummaryWriter(log_dir=str(folder), purge_step=purge)

    def add(self, step: int, name: str, value: float) -> None:
        """Takes one number."""
        self._writer.add_scalar(name, value, global_step=step)

    def flush(self) -> None:
        """Brings the events to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()
