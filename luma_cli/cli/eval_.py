"""`luma eval`: what a run or checkpoint gets right on a split, kept in the store."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luma_cli.cli.options import Database, Json, one_form

if TYPE_CHECKING:
    from luma_cli.data.split import Split
    from luma_cli.evaluate.evaluation import EvalSettings
    from luma_cli.store.records import EvaluationRecord
    from luma_cli.train.restore import Restored


class SplitName(StrEnum):
    """Splits of a dataset."""

    train = "train"
    val = "val"


class AbsentClass(StrEnum):
    """What a class counts that occurs neither in truth nor in prediction."""

    skip = "skip"
    zero = "zero"


class Format(StrEnum):
    """Number formats of the forward pass; scores are always fp32."""

    auto = "auto"
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


class Checkpoint(StrEnum):
    """Checkpoints of a run."""

    best = "best"
    latest = "latest"


def evaluate_run(
    run: Annotated[
        str, typer.Argument(help="Run id, the start of one, latest, run folder, checkpoint or weights file.")
    ],
    data: Annotated[
        str | None, typer.Option("--data", help="Dataset: name or TOML file. \\[default: the run's]")
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", help="Where the dataset is. \\[default: $LUMA_DATA]")] = None,
    split: Annotated[SplitName, typer.Option("--split", help="Split to evaluate on.")] = SplitName.val,
    tta: Annotated[bool, typer.Option("--tta", help="Average six scales, each with and without a flip.")] = False,
    absent: Annotated[
        AbsentClass, typer.Option("--absent", help="Classes in neither truth nor prediction; zero: as EoMT counts.")
    ] = AbsentClass.skip,
    boundary: Annotated[bool, typer.Option("--boundary/--no-boundary", help="Boundary IoU as well.")] = True,
    weights: Annotated[Checkpoint, typer.Option("--weights", help="Which checkpoint of a run.")] = Checkpoint.best,
    batch: Annotated[int | None, typer.Option("--batch", help="Windows per pass. \\[default: 1, on a GPU 8]")] = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Threads that read files and count pixels.")] = 2,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[Format, typer.Option("--dtype", help="auto: bf16 on a GPU that has it, else fp32.")] = Format.auto,
    skip_bad: Annotated[int, typer.Option("--skip-bad", help="Unusable images that may be left out.")] = 0,
    classes: Annotated[bool, typer.Option("--classes", help="Also every class.")] = False,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: one row, or with --classes one per class.")] = False,
    database: Database = None,
) -> None:
    """Evaluate a run or checkpoint: mIoU, mean accuracy, pixel accuracy, boundary IoU, windows and cost per image.

    The short side is resized to the run's resolution and windows slide along the long side, as EoMT evaluates.
    """
    from luma_cli.data.loader import keep_freed_memory
    from luma_cli.evaluate.evaluation import EvalSettings
    from luma_cli.evaluate.inference import torch_device
    from luma_cli.train.restore import restore

    one_form(as_json, as_csv)
    chosen = torch_device(device)
    restored = restore(run, weights.value, database=database, device=chosen)
    opened = _open(restored, data, root, split.value)
    settings = EvalSettings(
        resolution=restored.config.resolution,
        batch=batch if batch is not None else (8 if chosen.type == "cuda" else 1),
        tta=tta,
        boundary=boundary,
        skip_bad=skip_bad,
        absent=absent.value,
    )
    keep_freed_memory()
    record = _record(restored, opened, settings, dtype.value, workers)
    _keep(record, database)
    _print(record, _note(opened), as_json, as_csv, classes)


def _open(restored: Restored, data: str | None, root: Path | None, split: str) -> Split:
    """The split, found where the run found its data unless another place or dataset is named."""
    from luma_cli.catalogue.datasets import load_card
    from luma_cli.data.source import find_root
    from luma_cli.data.split import open_split

    card = load_card(data or restored.config.data)
    known = Path(restored.config.data_root) if restored.config.data_root and data in (None, card.name) else None
    place = root if root is not None else known if known is not None and known.exists() else None
    return open_split(card, find_root(card, place), split)


def _record(restored: Restored, opened: Split, settings: EvalSettings, dtype: str, workers: int) -> EvaluationRecord:
    from luma_cli.evaluate.evaluation import evaluate, evaluation_record
    from luma_cli.evaluate.inference import autocast_dtype, dtype_name
    from luma_cli.measure.segmenter_cost import segmenter_cost
    from luma_cli.report.image_progress import ImageProgress

    cost = segmenter_cost(restored.segmenter)
    used = autocast_dtype(dtype, next(restored.segmenter.parameters()).device)
    start, now = time.perf_counter(), datetime.now(UTC)
    counts = evaluate(
        restored.segmenter, opened, settings, dtype=used, num_workers=workers, on_image=ImageProgress(sys.stderr)
    )
    for _, reason in counts.skipped:
        print(f"luma: left out: {reason}", file=sys.stderr)
    return evaluation_record(
        counts,
        opened.table,
        resolution=settings.resolution,
        data=opened.identity,
        split=opened.name_of_split,
        seconds=time.perf_counter() - start,
        absent=settings.absent,
        tta=settings.tta,
        dtype=dtype_name(used),
        macs_per_window=cost.macs if cost.complete else None,
        run_id=restored.run_id,
        checkpoint_sha256=restored.sha256,
        step=restored.step,
        evaluated_at=now.isoformat(timespec="seconds"),
    )


def _note(opened: Split) -> str:
    """What the reader must know of data that is not the official one."""
    if opened.is_official:
        return ""
    official = opened.card.splits[opened.name_of_split].count if opened.card.shipped else 0
    size = f"{len(opened):,} of {official:,} images" if official else f"{len(opened):,} images"
    return f"data: {opened.identity} ({size}); not comparable with published numbers of {opened.card.name}"


def _keep(record: EvaluationRecord, database: Path | None) -> None:
    from contextlib import closing

    from luma_cli.store.database import open_write
    from luma_cli.store.runs import save_evaluation

    with closing(open_write(database)) as db:
        save_evaluation(db, record)


def _print(record: EvaluationRecord, note: str, as_json: bool, as_csv: bool, classes: bool) -> None:
    from luma_cli.report import evaluation as report

    if as_json:
        report.write_evaluation_json(record, sys.stdout, note)
    elif as_csv:
        report.write_evaluation_csv(record, sys.stdout, classes=classes)
    else:
        report.print_evaluation(record, classes=classes, note=note)
