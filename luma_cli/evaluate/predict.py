"""Label maps, overlays and a legend of image files. One bad file does not stop the others.

H W pixels of an image as it is seen, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from luma_cli.catalogue.datasets import Labels, LabelTable
from luma_cli.errors import BadSample, DataError, Diverged, UsageError
from luma_cli.evaluate.inference import predict_labels
from luma_cli.evaluate.legend import Counts, Entry, count_pixels, draw_legend, entries, to_csv, to_json
from luma_cli.evaluate.overlay import check_opacity, draw_overlay, palette_image
from luma_cli.evaluate.picture_file import write_picture, write_table
from luma_cli.evaluate.pictures import Picture, legend_files
from luma_cli.evaluate.upright import Pixels, read_upright
from luma_cli.head.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """How to predict and what to write.

    resolution: side of the windows in pixels, 0 for the segmenter's own. dtype: of autocast, or float32. batch: windows
    per pass. overlay, with its opacity from 0 to 1; raw: also the values of the dataset's own label files.
    """

    resolution: int = 0
    dtype: torch.dtype = torch.float32
    tta: bool = False
    batch: int = 1
    overlay: bool = True
    opacity: float = 0.5
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Predicted:
    """An image file and what was written for it. pixels: of each class [C]. failure: why there is nothing, or empty."""

    source: Path
    labels: Path | None = None
    overlay: Path | None = None
    raw: Path | None = None
    height: int = 0
    width: int = 0
    pixels: Counts | None = None
    failure: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written."""
        return tuple(file for file in (self.labels, self.overlay, self.raw) if file is not None)

    def to_json(self, table: LabelTable) -> dict[str, Any]:
        """The files, and the classes that were seen with their shares; of a failure the reason alone."""
        if self.pixels is None:
            return {"source": str(self.source), "failure": self.failure}
        seen = [{"index": e.index, "name": e.name, "share": e.share} for e in entries(table, self.pixels) if e.pixels]
        return {
            "source": str(self.source),
            "labels": str(self.labels),
            "overlay": str(self.overlay) if self.overlay else None,
            "raw": str(self.raw) if self.raw else None,
            "height": self.height,
            "width": self.width,
            "classes": seen,
        }


def predict_files(
    segmenter: Segmenter,
    table: LabelTable,
    pictures: Sequence[Picture],
    out: Path,
    settings: PredictSettings = PredictSettings(),  # noqa: B008  (frozen)
) -> Iterator[Predicted]:
    """Predict the pictures one after the other; what could not be read or predicted comes with its failure.

    Raises UsageError for classes that are not the head's, DataError when a result cannot be written.
    """
    check_opacity(settings.opacity)
    if table.num_classes != segmenter.config.num_classes:
        raise UsageError(f"the head has {segmenter.config.num_classes} classes, the dataset {table.num_classes}")
    return (_predict(segmenter, table, picture, out, settings) for picture in pictures)


def write_legend(
    table: LabelTable, found: Sequence[Predicted], out: Path, title: str, **facts: Any
) -> tuple[Path, ...]:
    """Write the classes of all images as picture, JSON and CSV; `facts` go into the JSON. None if all failed."""
    counts = [each.pixels for each in found if each.pixels is not None]
    if not counts:
        return ()
    seen: list[Entry] = entries(table, np.sum(counts, axis=0))
    picture, json_file, csv_file = legend_files(out)
    num_pixels = sum(each.pixels for each in seen)
    write_picture(picture, draw_legend(seen, title))
    write_table(json_file, to_json(seen, **facts, num_images=len(counts), num_pixels=num_pixels))
    write_table(csv_file, to_csv(seen))
    return picture, json_file, csv_file


def _predict(
    segmenter: Segmenter, table: LabelTable, picture: Picture, out: Path, settings: PredictSettings
) -> Predicted:
    try:
        image = read_upright(picture.path)
        labels = predict_labels(
            segmenter,
            image,
            settings.resolution,
            dtype=settings.dtype,
            tta=settings.tta,
            batch=settings.batch,
        )
    except (BadSample, Diverged) as error:
        text = str(error)
        return Predicted(picture.path, failure=text if str(picture.path) in text else f"{picture.path}: {text}")
    except (torch.OutOfMemoryError, MemoryError):
        return Predicted(picture.path, failure=f"{picture.path}: memory is not enough; try --device cpu or --batch 1")
    return _write(picture, image, labels, table, out, settings)


def _write(
    picture: Picture, image: Pixels, labels: Labels, table: LabelTable, out: Path, settings: PredictSettings
) -> Predicted:
    """The label map last: where it is, the others are."""
    label_file, overlay_file, raw_file = picture.files(out)
    pixels = count_pixels(labels, table.num_classes)
    if settings.overlay:
        write_picture(overlay_file, draw_overlay(image, labels, table, entries(table, pixels), settings.opacity))
    if settings.raw:
        write_picture(raw_file, Image.fromarray(table.decode(labels)))
    write_picture(label_file, palette_image(labels, table))
    return Predicted(
        source=picture.path,
        labels=label_file,
        overlay=overlay_file if settings.overlay else None,
        raw=raw_file if settings.raw else None,
        height=labels.shape[0],
        width=labels.shape[1],
        pixels=pixels,
    )


def demand_all(found: Sequence[Predicted]) -> None:
    """Raise DataError when an image failed."""
    failed = [each for each in found if each.failure]
    if failed:
        raise DataError(f"{len(failed)} of {len(found)} images could not be predicted, named above")
