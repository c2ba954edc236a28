"""A run in memory, ready for its next step, and how it is carried out."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from luma_cli.head.segmenter import Segmenter
from luma_cli.measure import devices
from luma_cli.measure.facts import segmenter_cost
from luma_cli.train import events
from luma_cli.train.checkpoint import CheckpointState
from luma_cli.train.config import Given, RunConfig, at_least
from luma_cli.train.prepare import Prepared, prepare
from luma_cli.train.processes import Processes, restore_random_state
from luma_cli.train.restore import build_model
from luma_cli.train.run_data import RunData, open_data
from luma_cli.train.session import Rhythm
from luma_cli.train.start import Start, new_start, resumed_start
from luma_cli.train.step import Trainer

_MOST_CHECKPOINT_STEPS = 1000
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Settings:
    """How a run is carried out; nothing here changes what it computes.

    num_workers: None for as many as the CPU has cores for. checkpoint_steps: None for an epoch, at most 1000. resume:
    the run to go on with, empty for a new one.
    """

    device: str = "auto"
    num_workers: int | None = None
    out: Path | None = None
    keep: int = 2
    checkpoint_steps: int | None = None
    tensorboard: bool = False
    resume: str = ""
    database: Path | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for a number out of range."""
        at_least("--workers", self.num_workers, 0)
        at_least("--keep", self.keep, 1)
        at_least("--checkpoint-steps", self.checkpoint_steps, 1)


@dataclass(frozen=True, slots=True)
class Work:
    """A run in memory, ready for its next step."""

    start: Start
    config: RunConfig
    data: RunData
    num_steps: int
    prepared: Prepared
    macs_per_window: int | None

    @property
    def trainer(self) -> Trainer:
        """The trainer."""
        return self.prepared.trainer


def make_ready(
    given: Given, settings: Settings, device: torch.device, processes: Processes, on_event: events.OnEvent
) -> Work:
    """Everything that can go wrong before the first step, cheapest first: settings, data, folder, weights, memory."""
    if settings.resume:

        def note(text: str) -> None:
            on_event(events.Noted(text))

        start = resumed_start(given, settings.resume, settings.out, settings.database, processes, note)
    else:
        start = new_start(given, settings.out, processes)
    data = open_data(start.config, processes)
    if data.order.shrunk:
        on_event(events.Noted(data.order.shrunk))
    recipe = start.config.recipe
    num_steps = recipe.steps or max(1, round(recipe.epochs * data.num_steps))
    segmenter = _segmenter(start, processes)
    normalisation = segmenter.backbone.normalisation
    config = replace(
        start.config,
        data_root=data.root,
        data_fingerprint=data.train.fingerprint,
        mean=normalisation.mean,
        std=normalisation.std,
    )
    macs = _macs(segmenter)
    prepared = prepare(config, segmenter, num_steps, device, processes, data.order.step_size)
    if start.state:
        _restore(prepared.trainer, start.state)
    facts = {
        **prepared.facts,
        **({} if start.state else _origin(segmenter)),
        "macs": macs,
        "ffn": segmenter.ffn,
        "num_train_images": len(data.train),
        "num_val_images": len(data.val),
        "command": sys.argv[1:],
    }
    return Work(start, prepared.config, data, num_steps, replace(prepared, facts=facts), macs)


def _segmenter(start: Start, processes: Processes) -> Segmenter:
    """The model at the start of the run, on the CPU; one process downloads, the others then find the file there."""
    weights = "random" if start.state else start.config.weights
    if not processes.is_first:
        processes.wait()
    segmenter = build_model(start.config, weights)
    if processes.is_first:
        processes.wait()
    return segmenter


def _origin(segmenter: Segmenter) -> dict[str, Any]:
    """Where the weights that a run begins with came from; a resumed one's have it in the store."""
    weights = segmenter.backbone.weights
    return {"weights": {"source": weights.source, "sha256": weights.sha256, "conversions": list(weights.conversions)}}


def _macs(segmenter: Segmenter) -> int | None:
    """Multiply-adds of one window; None where an operation could not be counted."""
    counted = segmenter_cost(segmenter)
    return counted.macs if counted.complete else None


def _restore(trainer: Trainer, state: CheckpointState) -> None:
    """The trainer as it was after `state.step` steps."""
    trainer.segmenter.load_state_dict(dict(state.model))
    trainer.optimizer.load_state_dict(dict(state.optimizer))
    trainer.watch.resume(state.extra["watch"])
    if trainer.scaler and state.scaler:
        trainer.scaler.load_state_dict(dict(state.scaler))
    if trainer.ema and state.ema is not None:
        trainer.ema.load_state_dict({"num_updates": state.extra["ema_updates"], "averages": state.ema})
    restore_random_state(state.random, trainer.processes.rank, trainer.device)


def rhythm_of(work: Work, settings: Settings) -> Rhythm:
    """When the run is validated and saved."""
    epoch_steps = work.data.num_steps
    every = work.config.recipe.eval_every_epochs * epoch_steps
    return Rhythm(
        num_steps=work.num_steps,
        evaluation_steps=max(1, round(every)) if every else 0,
        checkpoint_steps=settings.checkpoint_steps or min(epoch_steps, _MOST_CHECKPOINT_STEPS),
    )


def workers_of(trainer: Trainer, settings: Settings) -> int:
    """Loading processes: as asked; else one beside a CPU that computes, and beside a GPU one per core, at most 8."""
    if settings.num_workers is not None:
        return settings.num_workers
    cores = devices.num_threads({}) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    most = 1 if trainer.device.type == "cpu" else _MOST_WORKERS
    return max(0, min(most, cores - 1))
