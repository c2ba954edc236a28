"""Runs, evaluations and checkpoints made up for tests."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.store.records import ClassScore, Environment, EvaluationRecord, ImageScore, RunRecord
from luma_cli.store.rows import text
from luma_cli.store.runs import curves, list_runs
from luma_cli.train.checkpoint import CheckpointState, random_state, save_checkpoint
from luma_cli.train.config import RunConfig
from luma_cli.train.run_folder import RunFolder

RUN_ID = "20261121-153012-test_vit-ade20k-3fa2"
CONFIG = RunConfig("test_vit", 64, HeadConfig(num_queries=8, num_classes=4), "ade20k", Recipe(batch=4))


def load_run(connection: sqlite3.Connection | None, run_id: str) -> RunRecord | None:
    """The run of this id, or None."""
    return next((one for one in list_runs(connection) if one.run_id == run_id), None)


def curve(connection: sqlite3.Connection | None, run_id: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of one metric of a run; empty for one that it does not have."""
    return curves(connection, run_id).get(text(name), [])


def record(run_id: str = RUN_ID, **changes: Any) -> RunRecord:
    config = changes.pop("config", CONFIG)
    known = RunRecord(
        run_id=run_id,
        folder=f"/runs/{run_id}",
        config=json.loads(json.dumps(config.to_json())),
        environment=Environment({"device_name": "NVIDIA H200", "torch": "2.15.0"}, {"host": "node7"}),
        backbone=config.backbone,
        timm_name="test_vit.r160_in1k",
        pretraining="supervised",
        weights="pretrained",
        resolution=config.resolution,
        head=config.head.name,
        dataset="ade20k",
        recipe="ade20k",
        seed=0,
        num_steps=1000,
        batch=4,
        started_at="2026-11-21T15:30:12+00:00",
        facts={"params": 370_000},
    )
    return replace(known, **changes)


def evaluation(run_id: str = RUN_ID, **changes: Any) -> EvaluationRecord:
    known = EvaluationRecord(
        run_id=run_id,
        checkpoint_sha256="ab" * 32,
        step=1000,
        data="ade20k",
        split="val",
        resolution=64,
        protocol={"window": 64, "flip": False, "absent": "skip"},
        num_images=2,
        num_skipped=0,
        num_windows=4,
        num_classes=3,
        num_present=2,
        miou_percent=100 / 3,
        macc_percent=60.5,
        aacc_percent=70.25,
        boundary_miou_percent=None,
        windows_per_image=2.0,
        macs_per_image=2.5e9,
        seconds=1.5,
        evaluated_at="2026-11-21T17:00:00+00:00",
        classes=(
            ClassScore("wall", 2**40, 3, 5, 50.0, 51.0, 40.0),
            ClassScore("[red]sky", 7, 11, 13, 100 / 6, 17.0, None),
            ClassScore("sea", 0, 0, 0, None, None, None),
        ),
        images=(ImageScore("val_1", 64, 96, 2, 30.0, 71.0), ImageScore("val_2", 64, 64, 2, None, None)),
    )
    return replace(known, **changes)


def small_model(seed: int = 0, width: int = 8) -> nn.Module:
    """A module with parameters, a buffer and something that draws random numbers."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, width), nn.BatchNorm1d(width), nn.Dropout(0.5), nn.Linear(width, 1))


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, width: int = 8) -> float:
    """One step on inputs drawn from torch's own generator; its loss."""
    loss = model(torch.randn(4, width)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, step: int, **changes: Any) -> CheckpointState:
    known = CheckpointState(
        run_id=RUN_ID,
        config=CONFIG,
        step=step,
        epoch=step // 10,
        position=4 * step,
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        random=(random_state("cpu"),),
    )
    return replace(known, **changes)


def saved(folder: RunFolder, *steps: int, **options: Any) -> list[Path]:
    """Checkpoints of a small model at `steps`."""
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters())
    paths = []
    for step in steps:
        train_step(model, optimizer)
        paths.append(save_checkpoint(folder, state_of(model, optimizer, step), **options))
    return paths
