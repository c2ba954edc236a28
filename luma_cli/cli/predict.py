"""`luma predict`: label maps, overlays and a legend of image files, from a run or checkpoint."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from luma_cli.cli.eval_ import Checkpoint, Format
from luma_cli.cli.options import Database, Json

if TYPE_CHECKING:
    from luma_cli.catalogue.datasets import LabelTable
    from luma_cli.evaluate.predict import Predicted


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
    _print(found, legend, table, as_json)
    demand_all(found)


def _print(found: list[Predicted], legend: tuple[Path, ...], table: LabelTable, as_json: bool) -> None:
    if as_json:
        images = [each.to_json(table) for each in found]
        answer = {"schema": 1, "images": images, "legend": [str(file) for file in legend]}
        typer.echo(json.dumps(answer, indent=1, allow_nan=False))
        return
    for file in [*(file for each in found for file in each.files), *legend]:
        typer.echo(str(file))
