"""Label maps, overlays and a legend of image files. One bad file does not stop the others.

H W pixels of an image as it is seen, C classes.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from luma_cli.catalogue.datasets import Labels, LabelTable
from luma_cli.data.decode import decode_image
from luma_cli.errors import BadSample, DataError, Diverged, UsageError
from luma_cli.evaluate.inference import Pixels, predict_labels
from luma_cli.evaluate.overlay import (
    Entry,
    check_opacity,
    count_pixels,
    draw_legend,
    draw_overlay,
    entries,
    legend_csv,
    legend_json,
    palette_image,
    write_picture,
    write_table,
)
from luma_cli.head.segmenter import Segmenter

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
OVERLAY, RAW, LEGEND = "_overlay", "_raw", "legend"
_LONGEST = 255 - len(f"{OVERLAY}.jpg")  # bytes that file systems take


@dataclass(frozen=True, slots=True)
class Picture:
    """An image file, and its name among the results: relative, without suffix, one that no other picture has."""

    path: Path
    name: str

    @property
    def overlay_suffix(self) -> str:
        """JPEG for JPEG, PNG for all else: an overlay is no better than the photograph that it lies on."""
        return ".jpg" if self.path.suffix.lower() in (".jpg", ".jpeg") else ".png"

    def files(self, out: Path, labels: bool = True) -> tuple[Path, Path, Path]:
        """Label map, overlay and label values in the folder `out`, whether they are written or not.

        labels: whether there is a label map; without, the label values have its name.
        """
        return (
            out / f"{self.name}.png",
            out / f"{self.name}{OVERLAY}{self.overlay_suffix}",
            out / f"{self.name}{RAW if labels else ''}.png",
        )


def find_pictures(given: Sequence[str], out: Path, recursive: bool = False) -> list[Picture]:
    """The image files of paths, folders and patterns, each once, in the order given and by name within a folder.

    A folder's pictures keep their place below it. Two of the same name take their suffix into it, `a.jpg` beside
    `a.png`, and a number where that is not enough. Files in `out` are no input of a folder above it. Raises UsageError
    for a missing file and for a folder or pattern without pictures.
    """
    found: dict[Path, str] = {}
    for text in given:
        path = Path(text).expanduser()
        if os.path.isfile(path):  # Path's own raises for a name that is too long
            meant = [(path, path.name)]
        else:
            meant = _within(path, out, recursive) if os.path.isdir(path) else _matching(text)
        for file, below in meant:
            found.setdefault(file, below)
    names = _distinct(list(found.items()), out)
    return [Picture(path, name) for path, name in zip(found, names, strict=True)]


def demand_free(
    pictures: Sequence[Picture],
    out: Path,
    overwrite: bool = False,
    *,
    labels: bool = True,
    overlay: bool = True,
    raw: bool = True,
) -> None:
    """Raise UsageError when a result would replace an input, or another file unless `overwrite`."""
    inputs = {_identity(picture.path) for picture in pictures}
    results = (compress(picture.files(out, labels), (labels, overlay, raw)) for picture in pictures)
    targets = [*chain.from_iterable(results), *(legend_files(out) if labels else ())]
    for target in targets:
        if not os.path.lexists(target):
            continue
        if target.exists() and _identity(target) in inputs:
            raise UsageError(f"{target} is an input and would be overwritten; name another folder with --out")
        if not overwrite or target.is_dir():
            raise UsageError(f"{target} exists; name another folder with --out, or --force to replace it")


def legend_files(out: Path) -> tuple[Path, Path, Path]:
    """Picture, JSON and CSV of the legend."""
    return out / f"{LEGEND}.png", out / f"{LEGEND}.json", out / f"{LEGEND}.csv"


def _within(folder: Path, out: Path, recursive: bool) -> list[tuple[Path, str]]:
    inside = folder.rglob("*") if recursive else folder.iterdir()
    excluded = out.resolve() if out.resolve() != folder.resolve() else None
    files = sorted(
        path
        for path in inside
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and (excluded is None or excluded not in path.resolve().parents)
    )
    if not files:
        below = "" if recursive else "; --recursive looks into the folders below it"
        raise UsageError(f"{folder} has no {', '.join(sorted(SUFFIXES))} file{below}")
    return [(path, path.relative_to(folder).as_posix()) for path in files]


def _matching(text: str) -> list[tuple[Path, str]]:
    """Files of a pattern that the shell left alone."""
    if not glob.has_magic(text):
        raise UsageError(f"{text} does not exist; expected an image file, a folder or a pattern such as 'photos/*.jpg'")
    matches = [Path(match) for match in sorted(glob.glob(os.path.expanduser(text), recursive=True))]
    files = [(path, path.name) for path in matches if path.is_file() and path.suffix.lower() in SUFFIXES]
    if not files:
        raise UsageError(f"no {', '.join(sorted(SUFFIXES))} file matches {text!r} (seen from {Path.cwd()})")
    return files


def _distinct(found: Sequence[tuple[Path, str]], out: Path) -> list[str]:
    """A name for each, so that no two results and no legend share a file, whatever the case of letters."""
    stems = Counter(_stem(below).casefold() for _, below in found)
    taken = {str(file).casefold() for file in legend_files(out)}
    names = []
    for path, below in found:
        wanted = _stem(below) if stems[_stem(below).casefold()] == 1 else below
        candidates = map(bounded, chain((wanted, below), (f"{below}-{number}" for number in count(2))))
        name = next(each for each in candidates if not _files(path, each, out) & taken)
        taken |= _files(path, name, out)
        names.append(name)
    return names


def _files(path: Path, name: str, out: Path) -> set[str]:
    return {str(file).casefold() for file in Picture(path, name).files(out)}


def _stem(below: str) -> str:
    return below[: -len(Path(below).suffix)] if Path(below).suffix else below


def bounded(name: str) -> str:
    """The name, its last part cut and marked by a hash of the whole where a suffix would make it too long for a file.

    >>> len(bounded("a" * 300))
    243
    """
    folder, slash, last = name.rpartition("/")
    part = os.fsencode(last)
    if len(part) <= _LONGEST:
        return name
    mark = f"-{hashlib.sha256(part).hexdigest()[:8]}"
    return f"{folder}{slash}{part[: _LONGEST - len(mark)].decode(errors='ignore')}{mark}"


def _identity(path: Path) -> tuple[int, int]:
    """The same for two names of one file: links and other spellings."""
    status = path.stat()
    return status.st_dev, status.st_ino


def read_upright(path: Path) -> Pixels:
    """RGB [H, W, 3], turned once by its tag Orientation. Raises BadSample, naming the file; see `decode_image`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadSample(f"{path}: cannot be read: {error.strerror}") from error
    return decode_image(data, str(path)).upright


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """resolution: side of the windows in pixels, 0 for the segmenter's own. dtype: of autocast, or float32.

    batch: windows per pass. labels: class indices. overlay, with its opacity from 0 to 1. raw: values of the dataset's
    own label files.
    """

    resolution: int = 0
    dtype: torch.dtype = torch.float32
    tta: bool = False
    batch: int = 1
    labels: bool = True
    overlay: bool = True
    opacity: float = 0.5
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Predicted:
    """An image file and the files written for it. pixels: of each class [C]. failure: the reason, empty on success."""

    source: Path
    labels: Path | None = None
    overlay: Path | None = None
    raw: Path | None = None
    height: int = 0
    width: int = 0
    pixels: NDArray[np.int64] | None = None
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
            "labels": str(self.labels) if self.labels else None,
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
    """Predict the pictures one after the other; a picture that cannot be read or predicted comes with its failure.

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
    write_table(json_file, legend_json(seen, **facts, num_images=len(counts), num_pixels=num_pixels))
    write_table(csv_file, legend_csv(seen))
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
        return _write(picture, image, labels, table, out, settings)
    except (BadSample, Diverged) as error:
        text = str(error)
        return Predicted(picture.path, failure=text if str(picture.path) in text else f"{picture.path}: {text}")
    except (torch.OutOfMemoryError, MemoryError):
        return Predicted(picture.path, failure=f"{picture.path}: memory is not enough; try --device cpu or --batch 1")


def _write(
    picture: Picture, image: Pixels, labels: Labels, table: LabelTable, out: Path, settings: PredictSettings
) -> Predicted:
    """The label map last: where it is, the others are."""
    label_file, overlay_file, raw_file = picture.files(out, settings.labels)
    pixels = count_pixels(labels, table.num_classes)
    if settings.overlay:
        write_picture(overlay_file, draw_overlay(image, labels, table, entries(table, pixels), settings.opacity))
    if settings.raw:
        write_picture(raw_file, Image.fromarray(table.decode(labels)))
    if settings.labels:
        write_picture(label_file, palette_image(labels, table))
    return Predicted(
        source=picture.path,
        labels=label_file if settings.labels else None,
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
