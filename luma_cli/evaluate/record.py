"""What is kept of an evaluation: its counts as scores, and the protocol that they were made under. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from luma_cli.catalogue.datasets import LabelTable
from luma_cli.evaluate.boundary import BOUNDARY_RATIO, BoundaryCounts
from luma_cli.evaluate.confusion import Absent, Scores, mean, scores
from luma_cli.evaluate.counts import Counts
from luma_cli.evaluate.views import TTA_SCALES
from luma_cli.store.run_records import ClassScore, EvaluationRecord

Percents = Sequence[float | None]


def evaluation_record(
    counts: Counts,
    table: LabelTable,
    *,
    resolution: int,
    data: str,
    split: str,
    seconds: float,
    absent: Absent = "skip",
    tta: bool = False,
    dtype: str = "float32",
    macs_per_window: int | None = None,
    run_id: str = "",
    checkpoint_sha256: str = "",
    step: int = 0,
    evaluated_at: str = "",
) -> EvaluationRecord:
    """The record of the counts of all processes. seconds: wall time. macs_per_window: multiply-adds of one window."""
    found = scores(counts.confusion, absent)
    bands = _band_percents(counts.boundary, table.num_classes)
    num_images = len(counts.images)
    windows = counts.num_windows / num_images if num_images else 0.0
    return EvaluationRecord(
        run_id=run_id,
        checkpoint_sha256=checkpoint_sha256,
        step=step,
        data=data,
        split=split,
        resolution=resolution,
        protocol=protocol(resolution, tta=tta, absent=absent, dtype=dtype, boundary=counts.boundary is not None),
        num_images=num_images,
        num_skipped=len(counts.skipped),
        num_windows=counts.num_windows,
        num_classes=table.num_classes,
        num_present=found.num_present,
        miou_percent=found.miou,
        macc_percent=found.macc,
        aacc_percent=found.aacc,
        boundary_miou_percent=mean(bands, absent),
        windows_per_image=windows,
        macs_per_image=None if macs_per_window is None or not num_images else windows * macs_per_window,
        seconds=seconds,
        evaluated_at=evaluated_at,
        classes=_classes(counts, table, found, bands),
        images=tuple(image for _, image in counts.images),
    )


def protocol(resolution: int, *, tta: bool, absent: Absent, dtype: str, boundary: bool) -> dict[str, Any]:
    """Everything that moves the number, by name."""
    return {
        "window": resolution,
        "resize": "short side to the window, PIL bilinear",
        "scales": list(TTA_SCALES) if tta else [1.0],
        "flip": tta,
        "absent": absent,
        "dtype": dtype,
        "boundary_ratio": BOUNDARY_RATIO if boundary else None,
    }


def _band_percents(bands: BoundaryCounts | None, num_classes: int) -> Percents:
    if bands is None:
        return [None] * num_classes
    pairs = zip(bands.intersection.tolist(), bands.union.tolist(), strict=True)
    return [100.0 * both / either if either else None for both, either in pairs]


def _classes(counts: Counts, table: LabelTable, found: Scores, bands: Percents) -> tuple[ClassScore, ...]:
    right = np.diagonal(counts.confusion)
    wrongly = (counts.confusion.sum(axis=0) - right).tolist()
    missed = (counts.confusion.sum(axis=1) - right).tolist()
    columns = zip(table.names, right.tolist(), wrongly, missed, found.iou, found.accuracy, bands, strict=True)
    return tuple(ClassScore(*column) for column in columns)
