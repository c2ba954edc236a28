"""`luma train`, from what was asked for to a finished, stopped or failed run; runs in every process of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from luma_cli.catalogue.names import resolve
from luma_cli.data.loader import Skipped
from luma_cli.errors import Diverged, StoreError
from luma_cli.measure import devices
from luma_cli.store.database import open_write
from luma_cli.store.records import RunRecord, RunStatus
from luma_cli.store.runs import forget_after, start_run
from luma_cli.train import events, run_folder
from luma_cli.train.book import Book, Records
from luma_cli.train.config import Given
from luma_cli.train.launch import StopRequests
from luma_cli.train.metrics_log import MetricLog
from luma_cli.train.outcome import Outcome
from luma_cli.train.processes import find_device, joined, peak_bytes, started
from luma_cli.train.run_folder import RunFolder
from luma_cli.train.session import Session
from luma_cli.train.validate import Validation
from luma_cli.train.work import Settings, Work, make_ready, rhythm_of, workers_of

_TERMINATED = 143


def train_run(given: Given, settings: Settings, on_event: events.OnEvent = lambda event: None) -> Outcome:
    """Train, in this process's part of the run. A stop by signal is no error: the outcome carries the exit code.

    Raises UsageError and its kin for what was asked, DataError, WeightsError, RunError, Diverged.
    """
    processes = started()
    device = find_device(settings.device, processes)
    watcher = on_event if processes.is_first else _silent
    with StopRequests() as stops, joined(device, processes):
        work = make_ready(given, settings, device, processes, watcher)
        with _kept(work, settings, watcher) as book:
            session = _session(work, settings, book, lambda: bool(stops.requested), watcher)
            end = _guarded(session, book)
    code = (stops.exit_code or _TERMINATED) if end == "stopped" else 0
    best = max((score for score in book.scores.values() if score is not None), default=None)
    return Outcome(
        work.start.run_id, str(work.start.folder), end, session.step, work.num_steps, best, code, processes.is_first
    )


@contextmanager
def _kept(work: Work, settings: Settings, on_event: events.OnEvent) -> Iterator[Book]:
    """The book of the run while it is open; the first process holds its folder and its row meanwhile."""
    start, trainer = work.start, work.trainer
    skipped = Skipped(work.config.skip_bad)
    book = Book(work.config, start.run_id, trainer, work.data.order, None, on_event, skipped, begun=time.monotonic())
    if start.state:
        book.seconds = start.state.seconds
        book.scores = {int(step): score for step, score in start.state.extra["scores"].items()}
        skipped.add(start.state.extra["skipped"])
    if not trainer.processes.is_first:
        yield book
        return
    with ExitStack() as stack:
        if start.state:
            folder = stack.enter_context(run_folder.resumed(start.folder))
        else:
            folder = stack.enter_context(run_folder.started(start.folder, start.run_id, work.config))
        _keep_row(work, folder, settings.database)
        log = MetricLog(settings.database, start.run_id, work.num_steps, sink=_sink(folder, start.step, settings))
        stack.push(partial(_end, log))
        book.records = Records(folder, settings.database, log, settings.keep)
        on_event(events.Started(start.run_id, str(start.folder), start.step, work.num_steps, _shown(work)))
        yield book


def _end(log: MetricLog, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
    """Write the last numbers. Raises StoreError, unless the run ends by an error of its own."""
    with suppress(StoreError) if error else nullcontext():
        log.close()


def _keep_row(work: Work, folder: RunFolder, database: Path | None) -> None:
    config, start = work.config, work.start
    spec = resolve(config.backbone, imported=bool(config.imports))
    record = RunRecord(
        run_id=start.run_id,
        folder=str(folder.path),
        config=config.to_json(),
        environment=devices.here(devices.find(work.trainer.device.type)),
        backbone=config.backbone,
        timm_name=spec.timm_name,
        pretraining=spec.pretraining if config.weights == "pretrained" else "",
        weights=config.weights,
        resolution=config.resolution,
        head=config.head.name,
        dataset=work.data.train.identity,
        recipe=config.recipe.name + ("+" if config.recipe_changed else ""),
        seed=config.seed,
        num_steps=work.num_steps,
        batch=work.data.order.step_size,
        num_processes=work.trainer.processes.num,
        step=start.step,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        facts=work.prepared.facts,
    )
    with closing(open_write(database)) as db:
        start_run(db, record)
        forget_after(db, start.run_id, start.step)


def _sink(folder: RunFolder, step: int, settings: Settings) -> Any:
    if not settings.tensorboard:
        return None
    from luma_cli.train.tensorboard import TensorBoard

    return TensorBoard(folder.path / "tensorboard", step)


def _shown(work: Work) -> dict[str, str]:
    """What the user is told at the start."""
    config, facts = work.config, work.prepared.facts
    macs = f", {work.macs_per_window / 1e9:.3g} GMACs per window" if work.macs_per_window else ""
    changed = f" with {', '.join(config.recipe_changed)} changed" if config.recipe_changed else ""
    unreached = facts["params_unreached"]
    params = f"{facts['params']:,} parameters"
    shown = {
        "model": f"{config.backbone} + {config.head.name} at {config.resolution} px, {params}{macs}",
        "weights": f"those of step {work.start.step:,}" if work.start.state else facts["weights"]["source"],
        "data": f"{work.data.train.identity}, {len(work.data.train):,} images, {len(work.data.val):,} to validate",
        "recipe": f"{config.recipe.name}{changed}: {work.num_steps:,} steps of {work.data.order.step_size} images",
        "passes": f"{facts['micro_batch']}, {facts['dtype']}, on {work.trainer.device} x {facts['num_processes']}",
        "BatchNorm": facts["batch_norm"],
    }
    if config.grad_checkpoint:
        shown["activations"] = facts["activations"]
    return shown | ({"not trained, as no loss reaches it": ", ".join(unreached)} if unreached else {})


def _session(
    work: Work, settings: Settings, book: Book, stops: Callable[[], bool], on_event: events.OnEvent
) -> Session:
    config, trainer = work.config, work.trainer
    num_workers = workers_of(trainer, settings)
    validation = Validation(
        trainer=trainer,
        split=work.data.val,
        run_id=book.run_id,
        resolution=config.resolution,
        macs_per_window=work.macs_per_window,
        num_workers=num_workers,
        stops=stops,
        on_event=on_event,
        skip_bad=config.skip_bad,
    )
    return Session(
        trainer=trainer,
        feed=lambda step: work.data.feed(step, work.num_steps, num_workers, trainer.device.type == "cuda"),
        validate=validation,
        keeper=book,
        rhythm=rhythm_of(work, settings),
        stops=stops,
        on_event=on_event,
        memory_bytes=lambda: peak_bytes(trainer.device),
        step=work.start.step,
        saved=work.start.step,
        step_images=work.data.order.step_size,
        skipped=book.skipped,
        evaluated=set(book.scores),
    )


def _guarded(session: Session, book: Book) -> RunStatus:
    """Run, and keep how it ended, whatever happens."""
    try:
        end: RunStatus = session.run()
        facts = {"skipped": list(session.skipped.names), "memory_bytes": session.memory_bytes()}
        book.tell(step=session.step, status=end, facts=facts)
    except BaseException as error:
        status: RunStatus = "diverged" if isinstance(error, Diverged) else "failed"
        if isinstance(error, KeyboardInterrupt):
            status = "stopped"
        with suppress(StoreError):  # a full disk fails both, and what came first is what is told
            book.tell(step=session.step, status=status, reason=str(error) or type(error).__name__)
        raise
    return end


def _silent(event: events.Event) -> None:
    """Show nothing: the first process speaks for all."""
