"""`luma export`: a run as a file that other programs run, checked against torch."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from luma_cli.cli.eval_ import Checkpoint
from luma_cli.cli.options import Database, Json
from luma_cli.errors import UsageError


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
    from luma_cli.report.export import export_lines
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
