"""`luma runs`, `eval`, `predict` and `export`: trainings, their scores, and the use of their weights."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option

from luma_cli.cli.options import (
    Csv,
    Database,
    Import,
    Json,
    ListUnlessNamed,
    Yes,
    confirm,
    one_form,
    print_answer,
    spread,
)
from luma_cli.errors import UsageError

if TYPE_CHECKING:
    from luma_cli.data.split import Split
    from luma_cli.evaluate.evaluation import EvalSettings
    from luma_cli.evaluate.metrics import Counts
    from luma_cli.report.runs import Kept
    from luma_cli.store.records import EvaluationRecord
    from luma_cli.train.restore import Restored
    from luma_cli.train.runs import FoundRun


Run = Annotated[str, Argument(help="Run: id, start of an id, `latest` or run folder.")]
Runs = Annotated[list[str], Argument(help="Runs: ids, starts of ids, `latest` or run folders.")]


app = typer.Typer(
    cls=ListUnlessNamed, help="Trainings: list, show, compare, rm. Without a command: list.", add_completion=False
)


@app.command("list")
def list_runs(database: Database = None, as_json: Json = False, as_csv: Csv = False) -> None:
    """List all runs with their best mIoU, the newest last."""
    from luma_cli.report.runs import print_runs
    from luma_cli.train.runs import standings

    one_form(as_json, as_csv)
    print_runs(standings(database), sys.stdout, as_json=as_json, as_csv=as_csv)


@app.command()
def show(
    run: Run,
    classes: Annotated[bool, Option("--classes", help="Show every class of the latest evaluation.")] = False,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Show one run: settings, curves, evaluations, profiles of the same model.

    Example: luma runs show latest --classes
    """
    from luma_cli.report.runs import print_sheet
    from luma_cli.train.runs import find_run

    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    print_answer(_kept(find_run(run, database), database), as_json, print_sheet, classes, plain)


@app.command()
def compare(runs: Runs, database: Database = None, as_json: Json = False) -> None:
    """Compare runs: their results, and the settings in which they differ."""
    from luma_cli.report.runs import cautions, comparison_json, comparison_table
    from luma_cli.report.table import print_json, print_table

    compared = kept_runs(runs, database)
    if len(compared) < 2:
        raise UsageError(f"{len(compared)} run is given, expected two or more; `luma runs list` shows all")
    for caution in cautions(compared):
        print(f"luma: the numbers are not comparable: {caution}", file=sys.stderr)
    if as_json:
        print_json(comparison_json(compared))
    else:
        print_table(comparison_table(compared))


@app.command()
def rm(
    runs: Runs,
    files: Annotated[bool, Option("--files", help="Also the run folders with their checkpoints.")] = False,
    yes: Yes = False,
    database: Database = None,
) -> None:
    """Remove runs with their curves and evaluations from the database."""
    from luma_cli.train.runs import remove_run

    found = _found(runs, database)
    if not yes:
        for one in found:
            what = _what(one, files)
            confirm(f"remove {what}?", f"this removes {what}; add --yes to go ahead")
    for one in found:
        remove_run(one, database, files=files)
        print(f"removed {_what(one, files)}")


def _found(runs: list[str], database: Path | None) -> list[FoundRun]:
    """The runs of these names, each once."""
    from luma_cli.train.runs import find_run

    return list({one.run_id: one for one in (find_run(run, database) for run in runs)}.values())


def kept_runs(runs: list[str], database: Path | None) -> list[Kept]:
    """All that is known of the runs of these names, each once."""
    return [_kept(one, database) for one in _found(runs, database)]


def _what(found: FoundRun, files: bool) -> str:
    folder = f" and {found.folder.path}" if files and found.folder else ""
    return f"run {found.run_id} from the database{folder}"


def _kept(found: FoundRun, database: Path | None) -> Kept:
    from luma_cli.report.runs import COSTS, Kept
    from luma_cli.store.database import open_read
    from luma_cli.store.profiles import select_rows
    from luma_cli.store.runs import curves, evaluations
    from luma_cli.train.checkpoints import names
    from luma_cli.train.runs import standing

    config = found.record.config if found.record else found.folder.config().to_json() if found.folder else {}
    kept = Kept(standing(found, database), config, names(found.folder) if found.folder else [])
    connection = open_read(database)
    if connection is None:
        return kept
    with closing(connection):
        rows = select_rows(connection, COSTS, view="score_costs", run_id=found.run_id)
        costs = [dict(zip(COSTS, row, strict=True)) for row in dict.fromkeys(rows)]
        run, scored = found.run_id, evaluations(connection, found.run_id)
        of_labels, of_doubt = ([one for one in scored if bool(one.scores) == named] for named in (False, True))
        return replace(kept, curves=curves(connection, run), evaluations=of_labels, unknown=of_doubt, costs=costs)


def import_run(
    file: Annotated[Path, Argument(help="EoMT checkpoint (.ckpt, .bin, .safetensors) or folder of transformers.")],
    name: Annotated[str | None, Option("--as", help="Name of the run. \\[default: that of the file]")] = None,
    data: Annotated[str | None, Option(help="Dataset of its classes. \\[default: by their names]")] = None,
    backbone: Annotated[str | None, Option(help="Its backbone. \\[default: the released one of its width]")] = None,
    resolution: Annotated[
        int | None, Option("--res", help="Side of its crop in pixels, where the file has none.")
    ] = None,
    base: Annotated[str | None, Option(help="Backbone weights, for a file of differences from them (DINOv3).")] = None,
) -> None:
    """Make a run of an EoMT that another program trained: the official code or transformers.

    The run can be evaluated, predicted with, exported and trained on with --init, not resumed.

    Example: luma import eomt.ckpt --as eomt --data ade20k
    """
    from luma_cli.train.foreign import import_run as imported

    folder = imported(file.expanduser(), name or file.stem, data, backbone, resolution, base)
    typer.echo(str(folder))


@dataclass(frozen=True, slots=True)
class RunOptions:
    """A run or checkpoint to load."""

    run: Annotated[
        str, Argument(help="Run (id, start of an id, latest or folder), checkpoint, or file of another program.")
    ]
    weights: Annotated[Literal["best", "latest"], Option(help="Checkpoint of a run.")] = "best"
    imports: Import = None
    database: Database = None

    def restored(self, device: Any = "cpu", data: str | None = None) -> Restored:
        """The segmenter with these weights on a torch device, of another program for the classes of `data`."""
        from luma_cli.train.restore import restore

        imports = (self.imports,) if self.imports else ()
        return restore(self.run, self.weights, database=self.database, device=device, imports=imports, data=data)


@dataclass(frozen=True, slots=True)
class PassOptions:
    """Options of forward passes."""

    tta: Annotated[bool, Option("--tta", help="Average over six scales, each with and without a flip.")] = False
    batch: Annotated[int | None, Option(help="Windows per pass. \\[default: 1, on a GPU 8]")] = None
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")] = "auto"
    dtype: Annotated[
        Literal["auto", "bf16", "fp16", "fp32"],
        Option("--dtype", help="auto: bf16 on a GPU that supports it, else fp32."),
    ] = "auto"

    def windows(self, device: Any) -> int:
        """Windows per pass on that device."""
        return self.batch if self.batch is not None else (8 if device.type == "cuda" else 1)


@dataclass(frozen=True, slots=True)
class EvalOptions(RunOptions):
    """A run or checkpoint, or none where label maps are given."""

    run: Annotated[
        str, Argument(help="Run (id, start of an id, latest or folder), checkpoint or weights file; not with --pred.")
    ] = ""


@dataclass(frozen=True, slots=True)
class UnknownOptions:
    """Evaluation on objects that training never showed."""

    ood: Annotated[
        Path | None,
        Option("--ood", help="Folder of images with masks of unknown objects: AUPRC, AUROC, FPR95 instead of mIoU."),
    ] = None
    ood_value: Annotated[
        int | None, Option("--ood-value", help="Value of unknown objects in the masks. \\[default: 1, RoadAnomaly 2]")
    ] = None
    confidence: Annotated[
        Literal["largest", "entropy", "max-logit"],
        Option("--confidence", help="With --ood: what ranks the pixels: largest class score, entropy or max logit."),
    ] = "largest"
    out: Annotated[
        Path | None, Option("--out", help="With --ood: folder for pictures of how unsure each pixel is.")
    ] = None

    def demand_used(self) -> None:
        """Raises UsageError for an option that says nothing without --ood."""
        unused = {"--ood-value": self.ood_value is not None, "--confidence": self.confidence != "largest"}
        unused["--out"] = self.out is not None
        if self.ood is None and any(unused.values()):
            name = next(each for each, given in unused.items() if given)
            raise UsageError(f"{name} applies to --ood FOLDER alone; add it or leave {name} out")


@spread
def evaluate_run(
    source: EvalOptions,
    data: Annotated[str | None, Option(help="Dataset: name or TOML file. \\[default: that of the run]")] = None,
    root: Annotated[Path | None, Option(help="Folder of the dataset. \\[default: $LUMA_DATA]")] = None,
    split: Annotated[Literal["train", "val", "test"], Option(help="Split to evaluate on.")] = "val",
    pred: Annotated[
        Path | None, Option("--pred", help="Score the label maps of this folder, one PNG per image; needs --data.")
    ] = None,
    pred_values: Annotated[
        Literal["index", "value"],
        Option("--pred-values", help="What they hold: class indices as predict writes, or the dataset's own values."),
    ] = "index",
    absent: Annotated[
        Literal["skip", "zero"],
        Option("--absent", help="Classes in neither truth nor prediction: leave out, or count as 0 like EoMT."),
    ] = "skip",
    boundary: Annotated[bool, Option("--boundary/--no-boundary", help="Compute boundary IoU.")] = True,
    workers: Annotated[int, Option(min=0, help="Threads that read files and count pixels.")] = 2,
    skip_bad: Annotated[int, Option(help="Most unusable images to leave out.")] = 0,
    classes: Annotated[bool, Option("--classes", help="Also print every class.")] = False,
    map_names: Annotated[
        bool, Option("--map-names", help="With --data: classes in another order or fewer, matched by name.")
    ] = False,
    *,
    passes: PassOptions,
    unknown: UnknownOptions,
    as_json: Json = False,
    as_csv: Annotated[bool, Option("--csv", help="Print CSV: one row, or with --classes one per class.")] = False,
) -> None:
    """Evaluate a run, a checkpoint or given label maps: mIoU, accuracy, boundary IoU.

    As in EoMT, the short side is resized to the run's resolution and windows slide along the long side. With --pred
    the label maps of a folder are scored, and nothing is kept in the database. With --ood the score is how well the
    model's doubt tells unknown objects from known ones (SegmentMeIfYouCan, Fishyscapes, RoadAnomaly or own masks).

    Example: luma eval latest --tta
    """
    from luma_cli.data.decode import keep_freed_memory
    from luma_cli.evaluate.evaluation import EvalSettings
    from luma_cli.evaluate.inference import torch_device
    from luma_cli.report.evaluation import print_evaluation
    from luma_cli.store.database import open_write
    from luma_cli.store.runs import save_evaluation

    one_form(as_json, as_csv)
    unknown.demand_used()
    if unknown.ood is not None:
        if pred is not None or data is not None or classes or map_names:
            raise UsageError("--ood scores doubt, not classes; leave out --pred, --data, --classes and --map-names")
        _print_unknown(source, passes, unknown, as_json=as_json, as_csv=as_csv)
        return
    if pred is not None:
        if source.run or passes != PassOptions():
            raise UsageError("--pred scores label maps as they are; leave out the run and how it would predict")
        opened = _named(data, root, split)
        record = _scored(
            opened, pred, pred_values, boundary=boundary, absent=absent, skip_bad=skip_bad, workers=workers
        )
        print_evaluation(record, classes=classes, note=_note(opened), as_json=as_json, as_csv=as_csv)
        return
    if not source.run:
        raise UsageError("no run is given; try: luma eval latest, or --pred FOLDER --data NAME")
    device = torch_device(passes.device)
    restored = source.restored(device, data)
    opened = _open(restored, data, root, split, map_names)
    settings = EvalSettings(
        resolution=restored.config.resolution,
        batch=passes.windows(device),
        tta=passes.tta,
        boundary=boundary,
        skip_bad=skip_bad,
        absent=absent,
    )
    keep_freed_memory()
    record = _evaluated(restored, opened, settings, passes.dtype, workers)
    with closing(open_write(source.database)) as db:
        save_evaluation(db, record)
    print_evaluation(
        record, classes=classes, note=_note(opened), checkpoint=restored.which, as_json=as_json, as_csv=as_csv
    )


def _print_unknown(
    source: RunOptions, passes: PassOptions, asked: UnknownOptions, *, as_json: bool, as_csv: bool
) -> None:
    """Score how well a run tells unknown objects, keep it, print it; pictures where a folder is named."""
    from luma_cli.data.unknown import find_unknown
    from luma_cli.evaluate.inference import autocast_dtype, dtype_name, torch_device
    from luma_cli.evaluate.overlay import write_doubt
    from luma_cli.evaluate.unknown import Judged, evaluate_unknown, unknown_record
    from luma_cli.report.evaluation import print_unknown
    from luma_cli.report.progress import Countdown
    from luma_cli.store.database import open_write
    from luma_cli.store.runs import save_evaluation

    if not source.run or asked.ood is None:
        raise UsageError("no run is given; try: luma eval latest --ood FOLDER")
    data = find_unknown(asked.ood.expanduser(), asked.ood_value)
    device = torch_device(passes.device)
    restored = source.restored(device)
    used, resolution = autocast_dtype(passes.dtype, device), restored.config.resolution
    start, now = time.perf_counter(), datetime.now(UTC)
    count = Countdown(sys.stderr, len(data.pairs), done="evaluated")

    def judged(one: Judged) -> None:
        if asked.out is not None:
            write_doubt(asked.out, one.name, one.image, one.scores, one.truth)
        count()

    counts = evaluate_unknown(
        restored.segmenter,
        data,
        asked.confidence,
        resolution,
        dtype=used,
        tta=passes.tta,
        batch=passes.windows(device),
        on_image=judged,
    )
    record = unknown_record(
        counts,
        confidence=asked.confidence,
        data=data.identity,
        num_classes=restored.segmenter.config.num_classes,
        resolution=resolution,
        seconds=time.perf_counter() - start,
        tta=passes.tta,
        dtype=dtype_name(used),
        **_origin(restored, now),
    )
    with closing(open_write(source.database)) as db:
        save_evaluation(db, record)
    print_unknown(record, num_unlabelled=data.num_unlabelled, as_json=as_json, as_csv=as_csv)


def _origin(restored: Restored, now: datetime) -> dict[str, Any]:
    """What a record says of the checkpoint that was evaluated: its run, hash, step and cost, and when that was."""
    from luma_cli.measure.facts import segmenter_cost

    cost = segmenter_cost(restored.segmenter)
    return {
        "macs_per_window": cost.macs if cost.complete else None,
        "run_id": restored.run_id,
        "checkpoint_sha256": restored.sha256,
        "step": restored.step,
        "evaluated_at": now.isoformat(timespec="seconds"),
    }


def _open(restored: Restored, data: str | None, root: Path | None, split: str, map_names: bool) -> Split:
    """The split, in the run's own data folder unless another folder or dataset is named, with the model's classes.

    The model is made to predict the classes of the data where these are fewer or in another order.
    """
    from luma_cli.catalogue.datasets import load_card, matched_classes
    from luma_cli.data.source import find_root
    from luma_cli.data.split import open_split
    from luma_cli.train.restore import choose_classes

    config = restored.config
    card = load_card(data) if data else config.dataset_now()
    choose_classes(restored.segmenter, matched_classes(config.classes, card.table, map_names))
    known = config.data_root if card.name == config.dataset.name else ""
    return open_split(card, find_root(card, root, known), split)


def _named(data: str | None, root: Path | None, split: str) -> Split:
    """The split of the dataset that was named."""
    from luma_cli.catalogue.datasets import load_card
    from luma_cli.data.source import find_root
    from luma_cli.data.split import open_split

    if data is None:
        raise UsageError("--pred needs the dataset that the label maps are of; add --data NAME or --data FILE.toml")
    card = load_card(data)
    return open_split(card, find_root(card, root), split)


def _scored(
    opened: Split, folder: Path, values: Literal["index", "value"], *, workers: int, **settings: Any
) -> EvaluationRecord:
    """The scores of given label maps; images that were left out are named on stderr."""
    from luma_cli.evaluate.given import find_maps, score_maps
    from luma_cli.report.progress import Countdown

    maps = find_maps(folder, opened, values)
    count = Countdown(sys.stderr, len(opened), done="evaluated")
    record, skipped = score_maps(maps, num_workers=workers, on_image=lambda done, total: count(), **settings)
    for reason in skipped:
        print(f"luma: left out: {reason}", file=sys.stderr)
    return record


def _evaluated(restored: Restored, opened: Split, settings: EvalSettings, dtype: str, workers: int) -> EvaluationRecord:
    """The scores of the segmenter on the split; images that were left out are named on stderr."""
    from luma_cli.evaluate.evaluation import evaluate, evaluation_record
    from luma_cli.evaluate.inference import autocast_dtype, dtype_name
    from luma_cli.report.progress import Countdown

    num_known = restored.config.classes.num_classes
    used = autocast_dtype(dtype, next(restored.segmenter.parameters()).device)
    start, now = time.perf_counter(), datetime.now(UTC)
    count = Countdown(sys.stderr, len(opened), done="evaluated")
    counts = evaluate(
        restored.segmenter, opened, settings, dtype=used, num_workers=workers, on_image=lambda done, total: count()
    )
    for _, reason in counts.skipped:
        print(f"luma: left out: {reason}", file=sys.stderr)
    record = evaluation_record(
        counts,
        opened.table,
        resolution=settings.resolution,
        data=opened.identity,
        split=opened.name_of_split,
        seconds=time.perf_counter() - start,
        absent=settings.absent,
        tta=settings.tta,
        dtype=dtype_name(used),
        **_origin(restored, now),
    )
    if record.num_classes == num_known:
        return record
    return replace(record, protocol={**record.protocol, "classes": f"{record.num_classes} of the model's {num_known}"})


def counted(
    source: RunOptions, data: str | None, root: Path | None, split: str, passes: PassOptions
) -> tuple[str, Split, Counts]:
    """Name of the run, the split, and the pixels of every class that it takes for every other."""
    from luma_cli.evaluate.evaluation import EvalSettings, evaluate
    from luma_cli.evaluate.inference import autocast_dtype, torch_device
    from luma_cli.report.progress import Countdown

    device = torch_device(passes.device)
    restored = source.restored(device)
    opened = _open(restored, data, root, split, map_names=False)
    settings = EvalSettings(restored.config.resolution, batch=passes.windows(device), tta=passes.tta)
    count, dtype = Countdown(sys.stderr, len(opened), done="evaluated"), autocast_dtype(passes.dtype, device)
    counts = evaluate(restored.segmenter, opened, settings, dtype=dtype, num_workers=2, on_image=lambda *_: count())
    return restored.run_id or Path(source.run).name, opened, counts


def _note(opened: Split) -> str:
    """A warning about data other than the official one."""
    if opened.is_official:
        return ""
    official = opened.card.splits[opened.name_of_split].count if opened.card.shipped else 0
    size = f"{len(opened):,} of {official:,} images" if official else f"{len(opened):,} images"
    return f"data: {opened.identity} ({size}); not comparable with published numbers of {opened.card.name}"


@spread
def predict(
    source: RunOptions,
    images: Annotated[list[str], Argument(help="Image files, folders or patterns such as 'photos/*.jpg'.")],
    out: Annotated[Path, Option(help="Folder for the results.")],
    recursive: Annotated[bool, Option("--recursive", help="Also images in folders below a folder.")] = False,
    overlay: Annotated[bool, Option("--overlay/--no-overlay", help="Write the image with class colours.")] = True,
    opacity: Annotated[float, Option(help="Opacity of the colours, 0 to 1.")] = 0.5,
    raw: Annotated[
        bool, Option("--raw", help="Also write label maps with the values of the dataset's own files.")
    ] = False,
    raw_only: Annotated[
        bool, Option("--raw-only", help="Write those alone, as NAME.png: what the Cityscapes evaluation takes.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Replace existing results; never an input.")] = False,
    *,
    passes: PassOptions,
    as_json: Json = False,
) -> None:
    """Predict images of any size: label maps, overlays, a legend.

    A label map is a PNG of class indices shown in the class colours. Exit code 1 when an image failed; the others are
    still predicted.

    Example: luma predict latest photos --out predictions
    """
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
    from luma_cli.report.table import print_json

    check_opacity(opacity)
    pictures = find_pictures(images, out, recursive)
    written = {"labels": not raw_only, "overlay": overlay and not raw_only, "raw": raw or raw_only}
    demand_free(pictures, out, force, **written)
    device = torch_device(passes.device)
    settings = PredictSettings(
        dtype=autocast_dtype(passes.dtype, device),
        tta=passes.tta,
        batch=passes.windows(device),
        opacity=opacity,
        **written,
    )
    restored = source.restored(device)
    table = restored.config.classes
    count = Countdown(sys.stderr, len(pictures), done="predicted")
    found = []
    for each in predict_files(restored.segmenter, table, pictures, out, settings):
        found.append(each)
        if each.failure:
            print(f"luma: {each.failure}", file=sys.stderr)
        count()
    num_done = sum(not each.failure for each in found)
    title = f"{restored.run_id or Path(source.run).name}, {num_done} image{'' if num_done == 1 else 's'}"
    facts = {"run_id": restored.run_id or None, "step": restored.step}
    legend = () if raw_only else write_legend(table, found, out, title, **facts)
    if as_json:
        print_json({"schema": 1, "images": [each.to_json(table) for each in found], "legend": legend})
    else:
        for file in [*(file for each in found for file in each.files), *legend]:
            print(str(file))
    demand_all(found)


@spread
def export_run(
    source: RunOptions,
    form: Annotated[
        Literal["torch-export", "onnx", "safetensors"], Option("--format", help="Format of the file.")
    ] = "onnx",
    out: Annotated[Path | None, Option(help="File to write. \\[default: RUN with the suffix of the format]")] = None,
    batch: Annotated[str, Option(help="Images per call: a number, or dynamic.")] = "1",
    resolution: Annotated[
        int | None, Option("--res", help="Side of the input in pixels. \\[default: that of the run]")
    ] = None,
    scores: Annotated[bool, Option("--scores", help="Give class scores per pixel instead of logits.")] = False,
    tolerance: Annotated[float | None, Option(help="Maximum relative error. \\[default: 1e-4]")] = None,
    force: Annotated[bool, Option("--force", help="Replace an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Export a run in float32 and compare the file with torch.

    Exit code 1, and no file, when the relative error on random images is above the tolerance.

    Example: luma export latest --format onnx
    """
    from luma_cli.export.check import TOLERANCE
    from luma_cli.export.export import SUFFIXES, export
    from luma_cli.report.evaluation import export_lines
    from luma_cli.report.table import print_json

    num_images = _images_per_call(batch)
    restored = source.restored()
    name = restored.run_id or Path(source.run).stem
    made = export(
        restored.segmenter,
        out or Path(f"{name}{SUFFIXES[form]}"),
        form,
        resolution=resolution or 0,
        batch=num_images,
        scores=scores,
        classes=restored.config.classes,
        run_id=restored.run_id,
        step=restored.step,
        weights_sha256=restored.sha256,
        tolerance=TOLERANCE if tolerance is None else tolerance,
        overwrite=force,
    )
    for line in export_lines(made):
        print(f"luma: {line}", file=sys.stderr)
    if as_json:
        print_json(made)
    else:
        for file in made.files:
            print(str(file))


def _images_per_call(text: str) -> int:
    """The number, 0 for `dynamic`. Raises UsageError."""
    if text == "dynamic":
        return 0
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch is {text!r}, expected a number from 1 on, or dynamic")
    return int(text)
