"""`luma train`, from what was asked for to a finished, stopped or failed run; runs in every process of it.

Read from top to bottom: find the device, make the run ready (configure, open data, build, prepare), open its book,
loop, close.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from luma_cli.errors import Diverged, StoreError
from luma_cli.store.records import RunStatus
from luma_cli.to_json import to_json
from luma_cli.train.book import Book, opened
from luma_cli.train.config import Given, Settings
from luma_cli.train.loop import Evaluated, Event, Loop, Noted, OnEvent, Started
from luma_cli.train.prepare import Run, find_device, make_ready, peak_bytes
from luma_cli.train.processes import StopRequests, joined, started

_TERMINATED = 143
_FEW_IMAGES = 5_000  # CamVid has 367; Cityscapes' 2,975 are trained from pretrained weights in every paper


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run at the end of a session. is_first: whether this process is the one that speaks for all."""

    run_id: str
    folder: str
    status: RunStatus
    step: int
    num_steps: int
    best_miou_percent: float | None
    exit_code: int = field(metadata={"json": None})
    is_first: bool = field(default=True, metadata={"json": None})
    mean_of: str = field(default="", metadata={"json": None})  # of the best mIoU: over how many classes, if not all

    def to_json(self) -> dict[str, Any]:
        """Plain values, schema 1."""
        return {"schema": 1, **to_json(self)}

    def summary(self) -> str:
        """One line, with what to type next."""
        score = "" if self.best_miou_percent is None else f", best mIoU {self.best_miou_percent:.2f}{self.mean_of}"
        done = f"run {self.run_id} {self.status} at step {self.step} of {self.num_steps}{score}"
        if self.status == "stopped":
            return f"{done}; go on with: luma train --resume {self.run_id}"
        early = " (early: no better validation)" if self.step < self.num_steps else ""
        return f"{done}{early}; next: luma eval {self.run_id}, luma predict {self.run_id} IMAGE --out DIR"


def train_run(given: Given, settings: Settings, on_event: OnEvent = lambda event: None) -> Outcome:
    """Train, in this process's part of the run. A stop by signal is no error: the outcome carries the exit code.

    Raises UsageError and its kin for what was asked, DataError, WeightsError, RunError, Diverged.
    """
    processes = started()
    device = find_device(settings.device, processes)
    mean_of = ""

    def watcher(event: Event) -> None:
        nonlocal mean_of
        if isinstance(event, Evaluated) and event.best:
            mean_of = event.record.mean_of
        if processes.is_first:
            on_event(event)

    with StopRequests(aloud=processes.is_first) as stops, joined(device, processes):
        run = make_ready(given, settings, device, processes, lambda text: watcher(Noted(text)))
        settings = replace(settings, **run.config.session)
        with opened(run, settings) as book:
            watcher(Started(run.run_id, str(run.folder), run.step, run.num_steps, _shown(run)))
            end = _guarded(Loop(run, book, lambda: bool(stops.requested), watcher), book)
    code = (stops.exit_code or _TERMINATED) if end == "stopped" else 0
    best = max((score for score in run.scores.values() if score is not None), default=None)
    return Outcome(run.run_id, str(run.folder), end, run.step, run.num_steps, best, code, processes.is_first, mean_of)


def _guarded(loop: Loop, book: Book) -> RunStatus:
    """Run, and keep how it ended, whatever happens."""
    run = loop.run
    try:
        end: RunStatus = loop.train()
        facts = {"skipped": list(run.skipped.names), "memory_bytes": peak_bytes(run.trainer.device)}
        book.status(end, facts=facts)
    except BaseException as error:
        status: RunStatus = "diverged" if isinstance(error, Diverged) else "failed"
        if isinstance(error, KeyboardInterrupt):
            status = "stopped"
        with suppress(StoreError):  # a full disk fails both, and what came first is what is told
            book.status(status, reason=str(error) or type(error).__name__)
        raise
    return end


def _shown(run: Run) -> dict[str, str]:
    """What the user is told at the start."""
    config, facts = run.config, run.facts
    macs = f", {run.macs_per_window / 1e9:.3g} GMACs per window" if run.macs_per_window else ""
    changed = f" with {', '.join(config.recipe_changed)} changed" if config.recipe_changed else ""
    params = f"{facts['params']:,} parameters"
    shown = {
        "model": f"{config.backbone} + {config.head.name} at {config.resolution} px, {params}{macs}",
        "weights": facts["weights"]["source"] if "weights" in facts else f"those of step {run.step:,}",
        "data": f"{run.train.identity}, {len(run.train):,} images, {len(run.val):,} to validate",
        "images": facts["images"],
        "recipe": f"{config.recipe.name}{changed}: {run.num_steps:,} steps of {run.order.step_size} images",
        "passes": f"{facts['micro_batch']}, {facts['dtype']}, on {run.trainer.device} x {facts['num_processes']}",
        "BatchNorm": facts["batch_norm"],
    }
    if "warmups" in facts:
        shown["warm-ups"] = facts["warmups"]
    if config.weights == "random" and len(run.train) < _FEW_IMAGES and not run.is_resumed:
        shown["note"] = (
            f"the weights are random, and {len(run.train):,} images are few to learn from; pretrained ones "
            "(--weights pretrained or FILE, --init RUN) usually reach far more"
        )
    if config.grad_checkpoint:
        shown["activations"] = facts["activations"]
    if unreached := facts["params_unreached"]:
        shown["not trained, as no loss reaches it"] = ", ".join(unreached)
    return shown
