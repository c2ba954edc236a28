"""Scores of label maps that lie in a folder, by whatever program they were made.

A file belongs to an image by its name: that of the image, as `luma predict` writes it, or that of its label file; in
the same folder below, or in any when the name is the only one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from luma_cli.catalogue.datasets import IGNORED, Labels
from luma_cli.data.decode import decode_labels
from luma_cli.data.source import shown
from luma_cli.data.split import Pair, Split, by, foreign_text
from luma_cli.errors import BadSample, DataError, UsageError
from luma_cli.evaluate.evaluation import Loaded, Progress, Unusable, check_skipped, count, evaluation_record
from luma_cli.evaluate.metrics import BOUNDARY_RATIO, Absent, Counts, RunningCounts
from luma_cli.evaluate.predict import RAW, bounded
from luma_cli.store.records import EvaluationRecord

MapValues = Literal["index", "value"]


@dataclass(frozen=True, slots=True)
class GivenMaps:
    """The label map of every pair of a split, in its order. values: class indices, or those of the dataset's files."""

    split: Split
    files: tuple[Path, ...]
    values: MapValues = "index"

    def read(self, index: int) -> Labels:
        """Class indices [H, W], IGNORED where the map names no class. Raises BadSample, naming the file."""
        path, table = self.files[index], self.split.table
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadSample(f"{path}: cannot be read: {error.strerror or error}") from error
        found = decode_labels(data, shown(str(path)))
        if self.values == "value":
            if foreign := table.foreign(found):
                raise BadSample(f"{path}: {foreign_text(foreign)}; for class indices give --pred-values index")
            return table.encode(found)
        strange = found[(found >= table.num_classes) & (found != IGNORED)]
        if strange.size:
            raise BadSample(
                f"{path}: {int(strange[0])} is no index of {table.num_classes} classes; for the values of the "
                "dataset's own files give --pred-values value"
            )
        return found


def find_maps(folder: Path, split: Split, values: MapValues = "index") -> GivenMaps:
    """The label maps in `folder` and below. Raises UsageError without a folder, DataError for a missing one."""
    if not folder.is_dir():
        raise UsageError(f"--pred {folder} is no folder; expected one with a label map for each image")
    places: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.png")):
        places[path.relative_to(folder).as_posix()].append(path)
        if path.parent != folder:
            places[path.name].append(path)
    found = [_find(pair, places, values) for pair in split.pairs]
    if missing := [pair for pair, path in zip(split.pairs, found, strict=True) if path is None]:
        names = ", ".join(dict.fromkeys(os.path.basename(name) for name in _names(missing[0], values)))
        raise DataError(
            f"{shown(str(folder))}: no label map for {len(missing):,} of {len(found):,} images; for "
            f"{shown(missing[0].name)} looked for one file called {names}"
        )
    return GivenMaps(split, tuple(path for path in found if path is not None), values)


def _find(pair: Pair, places: dict[str, list[Path]], values: MapValues) -> Path | None:
    names = list(_names(pair, values))
    for name in (*names, *map(os.path.basename, names)):
        if len(there := places.get(name, [])) == 1:
            return there[0]
    return None


def _names(pair: Pair, values: MapValues) -> Iterator[str]:
    """The likeliest first."""
    for name in dict.fromkeys((bounded(os.path.splitext(pair.image)[0]), bounded(pair.image))):
        if values == "value":
            yield f"{name}{RAW}.png"
        yield f"{name}.png"
        yield f"{name}_pred.png"
    yield pair.labels


def score_maps(
    maps: GivenMaps,
    *,
    boundary: bool = True,
    absent: Absent = "skip",
    skip_bad: int = 0,
    num_workers: int = 0,
    on_image: Progress = lambda done, total: None,
) -> tuple[EvaluationRecord, Sequence[str]]:
    """The scores, with no run, no windows and a protocol of its own; and why images were left out.

    Where a map names no class, the pixel is missed. Raises BadSample for more than `skip_bad` unusable pairs.
    """
    split = maps.split
    tally = RunningCounts(split.table.num_classes, unsaid=True)
    with ThreadPoolExecutor(max(1, num_workers), "luma-eval") as pool:
        for part in pool.map(partial(_count, maps, boundary), range(len(split))):
            if isinstance(part, Unusable):
                tally.skipped.append((part.index, part.reason))
                check_skipped(tally.skipped, skip_bad)
            else:
                tally.add(part)
            on_image(tally.num_done, len(split))
    counts = tally.total()
    record = evaluation_record(
        counts, split.table, resolution=0, data=split.identity, split=split.name_of_split, seconds=0.0, absent=absent
    )
    protocol = {
        "label_maps": maps.values,
        "absent": absent,
        "boundary_ratio": BOUNDARY_RATIO if boundary else None,
    }
    return replace(record, protocol=protocol), [reason for _, reason in counts.skipped]


def _count(maps: GivenMaps, boundary: bool, index: int) -> Counts | Unusable:
    split = maps.split
    try:
        truth, predicted = split.labels(index), maps.read(index)
        if truth.shape != predicted.shape:
            other = split.labels_path(index)
            raise BadSample(f"{maps.files[index]}: {by(predicted.shape)} pixels, but {other} has {by(truth.shape)}")
    except BadSample as error:
        return Unusable(index, str(error))
    loaded = Loaded(index, split.name(index), (), truth)
    return count(loaded, predicted, split.table.num_classes, boundary, unsaid=True)
