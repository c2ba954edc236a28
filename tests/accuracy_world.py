"""Made-up evidence: single rows, a small table, and worlds drawn from the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from luma_cli.accuracy.effects import CENTRE, Observations, features, noise_name, usual_data
from luma_cli.accuracy.fit import load_components
from luma_cli.accuracy.subjects import subject_of_row
from luma_cli.evidence.evidence import Evidence, load_reference


def row(backbone: str = "swin_tiny", miou: float = 45.0, **fields: Any) -> Evidence:
    """A published fine-tuned row; `fields` replace anything. The id says it all: the same row twice is one."""
    usual = {
        "id": f"{backbone}, {miou}, {sorted(fields.items())}",
        "provenance": "other head",
        "trust": "primary",
        "dataset": "ade20k",
        "split": "val",
        "head": "upernet",
        "regime": "fine-tuned",
        "eval": "single-scale",
        "height": 512,
        "width": 512,
        "pretraining": "supervised_in1k",
        "pretraining_raw": "supervised",
        "pretraining_data": "ImageNet-1k",
        "source": "a paper",
    }
    return Evidence(backbone=backbone, miou_percent=miou, **{**usual, **fields})


def own(timm: str, miou: float, *, recipe: str = "measured here", **fields: Any) -> Evidence:
    """An own LUMA run as the store gives it."""
    mine: dict[str, Any] = {"provenance": "own run", "head": "luma", "pretraining": "", "pretraining_raw": ""}
    mine |= {"pretraining_data": "", "recipe": recipe, "schedule": "39153 iters", "source": f"run of {timm} at {miou}"}
    return replace(row(timm, miou, timm=timm, **mine), **fields)


def some_rows(step: int = 14) -> list[Evidence]:
    """Every so many shipped rows: about 70 by default, of both datasets and regimes."""
    return load_reference()[::step]


def dense(observed: Observations) -> np.ndarray:
    """Design matrix [n, p]."""
    matrix = np.zeros((len(observed), len(observed.keys)))
    for index, column in enumerate(observed.columns):
        matrix[column.rows, index] += column.values
    return matrix


def simulated(rows: Sequence[Evidence], seed: int) -> list[Evidence]:
    """The rows with mIoU drawn from the model: effects from their prior, then noise of a run.

    Levels and regimes, of which the prior knows next to nothing, are those of real tables: 50 mIoU.
    """
    components, generator = load_components(), np.random.default_rng(seed)
    subjects = [subject_of_row(each) for each in rows]
    usual = usual_data(subjects)
    effects: dict[tuple[str, str], float] = {}
    found = []
    for each, subject in zip(rows, subjects, strict=True):
        log_error = CENTRE + components.noise(noise_name(subject)) * generator.standard_normal()
        for group, level, value in features(subject, usual, components.sensitivity):
            if (group, level) not in effects:
                sd = 0.0 if group in ("level", "regime") else components.effects[group]
                mean = 0.06 if group == "low resolution" else 0.0
                effects[group, level] = mean + sd * generator.standard_normal()
            log_error += value * effects[group, level]
        found.append(replace(each, miou_percent=float(100 - np.exp(min(log_error, 4.6))), doubtful=""))
    return found
