"""`luma runs`: trainings, how they stand, what they reached."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from luma_cli.cli.options import Csv, Database, Json, ListUnlessNamed, one_form
from luma_cli.errors import UsageError

if TYPE_CHECKING:
    from luma_cli.catalogue.datasets import LabelTable
    from luma_cli.data.split import Split
    from luma_cli.evaluate.evaluation import EvalSettings
    from luma_cli.evaluate.predict import Predicted
    from luma_cli.report.runs import Compared
    from luma_cli.store.records import EvaluationRecord
    from luma_cli.train.find_run import FoundRun
    from luma_cli.train.restore import Restored


Run = Annotated[str, typer.Argument(help="Id of a run, the start of one, `latest`, or the path of a run folder.")]
Runs = Annotated[list[str], typer.Argument(help="Runs, each as an id, the start of one, `latest` or a path.")]


app = typer.Typer(
    cls=ListUnlessNamed, help="Trainings: list, show, compare, rm. Without a command: list.", add_completion=False
)


@app.command("list")
def list_runs(database: Database = None, as_json: Json = False, as_csv: Csv = False) -> None:
    """List all runs, the newest last, with the best mIoU of each."""
    from luma_cli.report.runs import print_runs
    from luma_cli.train.standing import standings

    one_form(as_json, as_csv)
    print_runs(standings(database), sys.stdout, as_json=as_json, as_csv=as_csv)


@app.command()
def show(
    run: Run,
    classes: Annotated[bool, typer.Option("--classes", help="Every class of the latest evaluation.")] = False,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Show one run: settings, curves, evaluations, cost of the same model."""
    from luma_cli.report import runs as run_sheet
    from luma_cli.report.table import print_table
    from luma_cli.train.checkpoints import names
    from luma_cli.train.find_run import find_run
    from luma_cli.train.standing import standing

    found = find_run(run, database)
    one, config = standing(found, database), _config(found)
    checkpoints = names(found.folder) if found.folder else []
    curves, evaluations, costs = _kept(found.run_id, database)
    if as_json:
        sheet = run_sheet.sheet_json(one, config, checkpoints, curves, evaluations, costs)
        typer.echo(json.dumps(sheet, indent=1, allow_nan=False))
        return
    print_table(run_sheet.facts_table(one, config, checkpoints))
    if curves:
        print_table(run_sheet.curves_table(curves, plain=not _knows_blocks()))
    if evaluations:
        print_table(run_sheet.evaluations_table(evaluations))
    if any(row["device_name"] for row in costs):
        print_table(run_sheet.costs_table(costs))
    if classes and evaluations:
        print_table(run_sheet.classes_table(evaluations[-1]))


@app.command()
def compare(runs: Runs, database: Database = None, as_json: Json = False) -> None:
    """Put runs side by side: what they reached and in which settings they differ."""
    from luma_cli.report import runs as run_comparison
    from luma_cli.report.table import print_table
    from luma_cli.train.find_run import find_run

    found = {one.run_id: one for one in (find_run(run, database) for run in runs)}
    if len(found) < 2:
        raise UsageError(f"{len(found)} run is given, expected two or more; `luma runs list` shows all")
    compared = [_compared(one, database) for one in found.values()]
    for caution in run_comparison.cautions(compared):
        print(f"luma: the numbers cannot be compared as they are: {caution}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps(run_comparison.comparison_json(compared), indent=1, allow_nan=False))
    else:
        print_table(run_comparison.comparison_table(compared))


@app.command()
def rm(
    runs: Runs,
    files: Annotated[bool, typer.Option("--files", help="The run folder with its checkpoints, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database: Database = None,
) -> None:
    """Remove runs with their curves and evaluations from the database."""
    from luma_cli.train.find_run import find_run
    from luma_cli.train.removal import remove_run

    found = {one.run_id: one for one in (find_run(run, database) for run in runs)}
    for one in found.values():
        what = _what(one, files)
        if not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"this removes {what}; add --yes to go ahead")
        if not yes and not typer.confirm(f"remove {what}?", err=True):
            raise typer.Abort
    for one in found.values():
        remove_run(one, database, files=files)
        typer.echo(f"removed {_what(one, files)}")


def _what(found: FoundRun, files: bool) -> str:
    folder = f" and {found.folder.path}" if files and found.folder else ""
    return f"run {found.run_id} from the database{folder}"


def _config(found: FoundRun) -> dict[str, Any]:
    """As in config.json."""
    if found.record is not None:
        return found.record.config
    return found.folder.config().to_json() if found.folder else {}


def _kept(run_id: str, database: Path | None) -> tuple[Any, Any, list[dict[str, Any]]]:
    """Curves, evaluations and costs of a run in the database."""
    from luma_cli.report.runs import COSTS
    from luma_cli.store import database as files
    from luma_cli.store.profiles import select_rows
    from luma_cli.store.runs import curves, evaluations

    connection = files.open_read(database)
    if connection is None:
        return {}, [], []
    try:
        rows = select_rows(connection, COSTS, view="score_costs", run_id=run_id)
        costs = [dict(zip(COSTS, row, strict=True)) for row in dict.fromkeys(rows)]
        return curves(connection, run_id), evaluations(connection, run_id), costs
    finally:
        connection.close()


def _compared(found: FoundRun, database: Path | None) -> Compared:
    from luma_cli.report.runs import Compared
    from luma_cli.train.standing import standing

    _, evaluations, _ = _kept(found.run_id, database)
    return Compared(standing(found, database), _config(found), evaluations[-1] if evaluations else None)


def _knows_blocks() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")


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
    from luma_cli.data.decode import keep_freed_memory
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
    from luma_cli.measure.facts import segmenter_cost
    from luma_cli.report.progress import ImageProgress

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


def predict(
    run: Annotated[
        str, typer.Argument(help="Run id, the start of one, latest, run folder, checkpoint or weights file.")
    ],
    images: Annotated[list[str], typer.Argument(help="Image files, folders or patterns such as 'photos/*.jpg'.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the results, made when missing.")],
    recursive: Annotated[bool, typer.Option("--recursive", help="Look into the folders below a folder too.")] = False,
    overlay: Annotated[bool, typer.Option("--overlay/--no-overlay", help="Class colours over the image.")] = True,
    opacity: Annotated[float, typer.Option("--opacity", help="Of the colours: 0 the image, 1 the colours.")] = 0.5,
    raw: Annotated[bool, typer.Option("--raw", help="Also the values of the dataset's own label files.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace results that exist; never an input.")] = False,
    weights: Annotated[Checkpoint, typer.Option("--weights", help="Which checkpoint of a run.")] = Checkpoint.best,
    tta: Annotated[bool, typer.Option("--tta", help="Average six scales, each with and without a flip.")] = False,
    batch: Annotated[int | None, typer.Option("--batch", help="Windows per pass. \\[default: 1, on a GPU 8]")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[Format, typer.Option("--dtype", help="auto: bf16 on a GPU that has it, else fp32.")] = Format.auto,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Predict images of any size: a label map and an overlay each, one legend of all.

    A label map is a PNG of class indices shown in the class colours. Exit code 1 when an image could not be predicted;
    the others are.
    """
    from luma_cli.catalogue.datasets import load_card
    from luma_cli.evaluate.inference import autocast_dtype, torch_device
    from luma_cli.evaluate.overlay import check_opacity
    from luma_cli.evaluate.predict import (
        PredictSettings,
        demand_all,
        demand_free,
        find_pictures,
        predict_files,
        write_legend,
    )
    from luma_cli.report.progress import Countdown
    from luma_cli.train.restore import restore

    check_opacity(opacity)
    pictures = find_pictures(images, out, recursive)
    demand_free(pictures, out, force, overlay=overlay, raw=raw)
    chosen = torch_device(device)
    settings = PredictSettings(
        dtype=autocast_dtype(dtype.value, chosen),
        tta=tta,
        batch=batch if batch is not None else (8 if chosen.type == "cuda" else 1),
        overlay=overlay,
        opacity=opacity,
        raw=raw,
    )
    restored = restore(run, weights.value, database=database, device=chosen)
    table = load_card(restored.config.data).table
    count = Countdown(sys.stderr, len(pictures), done="predicted")
    found: list[Predicted] = []
    for each in predict_files(restored.segmenter, table, pictures, out, settings):
        found.append(each)
        if each.failure:
            print(f"luma: {each.failure}", file=sys.stderr)
        count()
    num_done = sum(not each.failure for each in found)
    title = f"{restored.run_id or Path(run).name}, {num_done} image{'' if num_done == 1 else 's'}"
    legend = write_legend(table, found, out, title, run_id=restored.run_id or None, step=restored.step)
    _print_predicted(found, legend, table, as_json)
    demand_all(found)


def _print_predicted(found: list[Predicted], legend: tuple[Path, ...], table: LabelTable, as_json: bool) -> None:
    if as_json:
        images = [each.to_json(table) for each in found]
        answer = {"schema": 1, "images": images, "legend": [str(file) for file in legend]}
        typer.echo(json.dumps(answer, indent=1, allow_nan=False))
        return
    for file in [*(file for each in found for file in each.files), *legend]:
        typer.echo(str(file))


class ExportFormat(StrEnum):
    """Kinds of files."""

    torch_export = "torch-export"
    onnx = "onnx"
    safetensors = "safetensors"


def export_run(
    run: Annotated[
        str, typer.Argument(help="Run id, the start of one, latest, run folder, checkpoint or weights file.")
    ],
    form: Annotated[ExportFormat, typer.Option("--format", help="Kind of file.")] = ExportFormat.onnx,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write. \\[default: RUN and the suffix, here]")
    ] = None,
    batch: Annotated[str, typer.Option("--batch", help="Images per call: a number, or dynamic for any.")] = "1",
    resolution: Annotated[
        int | None, typer.Option("--res", help="Side of the input in pixels. \\[default: the run's]")
    ] = None,
    scores: Annotated[bool, typer.Option("--scores", help="Class scores per pixel in place of the logits.")] = False,
    weights: Annotated[Checkpoint, typer.Option("--weights", help="Which checkpoint of a run.")] = Checkpoint.best,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", help="Largest difference, of an output's largest value: 1e-4 unless given."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    as_json: Json = False,
    database: Database = None,
) -> None:
    """Export a run in float32 and compare the file with torch on random images.

    Exit code 1, and no file, when they differ by more than the tolerance.
    """
    from luma_cli.catalogue.datasets import load_card
    from luma_cli.export.check import TOLERANCE
    from luma_cli.export.export import SUFFIXES, export
    from luma_cli.report.evaluation import export_lines
    from luma_cli.train.restore import restore

    num_images = _images_per_call(batch)
    restored = restore(run, weights.value, database=database)
    name = restored.run_id or Path(run).stem
    made = export(
        restored.segmenter,
        out or Path(f"{name}{SUFFIXES[form.value]}"),
        form.value,
        resolution=resolution or 0,
        batch=num_images,
        scores=scores,
        classes=load_card(restored.config.data).table,
        run_id=restored.run_id,
        step=restored.step,
        weights_sha256=restored.sha256,
        tolerance=TOLERANCE if tolerance is None else tolerance,
        overwrite=force,
    )
    for line in export_lines(made):
        print(f"luma: {line}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps(made.to_json(), indent=1, allow_nan=False))
    else:
        for file in made.files:
            typer.echo(str(file))


def _images_per_call(text: str) -> int:
    """The number, 0 for `dynamic`. Raises UsageError."""
    if text == "dynamic":
        return 0
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch is {text!r}, expected a number from 1 on, or dynamic")
    return int(text)
