"""Scores of a segmenter on a split: predictions at the files' own size against their label maps.

Threads read files and count results while the model computes; decoding, resizing and counting release Python's lock.
Counts depend neither on the number of threads nor on that of processes: images are dealt out in fixed groups, and one
group shares forward passes. H W pixels, C classes.
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from luma_cli.catalogue.datasets import IGNORED, Labels, LabelTable
from luma_cli.data.split import Samples
from luma_cli.errors import BadSample, UsageError
from luma_cli.evaluate.inference import TTA_SCALES, Pixels, View, inference, look_at, predict_views
from luma_cli.evaluate.metrics import (
    BOUNDARY_RATIO,
    Absent,
    BoundaryCounts,
    Counts,
    RunningCounts,
    Scores,
    boundary_counts,
    confusion_matrix,
    mean,
    scores,
)
from luma_cli.head.segmenter import Segmenter
from luma_cli.store.records import ClassScore, EvaluationRecord, ImageScore

Progress = Callable[[int, int], None]
Percents = Sequence[float | None]
Item = TypeVar("Item")
Result = TypeVar("Result")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable pair: its views for the model, and its label map [H, W]."""

    index: int
    name: str
    views: tuple[View, ...]
    truth: Labels


@dataclass(frozen=True, slots=True)
class Unusable:
    """An unusable pair, and the reason."""

    index: int
    reason: str


def load(samples: Samples, index: int, side: int, *, tta: bool = False) -> Loaded | Unusable:
    """Pair `index`, cut into windows of `side` pixels."""
    try:
        image, truth = samples.image(index), samples.labels(index)
    except BadSample as error:
        return Unusable(index, str(error))
    name = samples.name(index)
    try:
        _check_labels(image, truth, samples.table.num_classes)
        return Loaded(index, name, look_at(image, side, tta=tta), truth)
    except BadSample as error:  # it does not name the file, unlike those of reading
        return Unusable(index, f"{name}: {error}")


def _check_labels(image: Pixels, truth: Labels, num_classes: int) -> None:
    if truth.shape != image.shape[:2]:
        raise BadSample(f"labels of {list(truth.shape)} pixels, expected {list(image.shape[:2])} as the image has")
    strange = truth[(truth >= num_classes) & (truth != IGNORED)]
    if strange.size:
        raise BadSample(f"label {strange[0]}, expected 0 to {num_classes - 1}, or {IGNORED} for ignored")


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """How to evaluate. All but `batch` and `skip_bad` belong to the protocol.

    resolution: side of the windows in pixels. batch: windows per forward pass at most, and images whose windows may
    share one. tta: six sizes with and without a flip. boundary: also boundary IoU. skip_bad: unreadable images that may
    be left out. absent: the score of a class in neither truth nor prediction.
    """

    resolution: int
    batch: int = 1
    tta: bool = False
    boundary: bool = False
    skip_bad: int = 0
    absent: Absent = "skip"

    def __post_init__(self) -> None:
        for name, least in (("resolution", 1), ("batch", 1), ("skip_bad", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least {least}")


def evaluate(
    segmenter: Segmenter,
    samples: Samples,
    settings: EvalSettings,
    *,
    dtype: torch.dtype = torch.float32,
    rank: int = 0,
    num_ranks: int = 1,
    num_workers: int = 0,
    on_image: Progress | None = None,
) -> Counts:
    """The counts of process `rank` of `num_ranks`, on the segmenter's device; `merge` adds them up.

    Every image belongs to exactly one process. dtype: float32, or that of autocast. num_workers: threads that read and
    count, 0 for none. on_image: called with images done and all images of this process. Raises BadSample for more than
    `skip_bad` unusable images, UsageError and Diverged.
    """
    known, given = segmenter.config.num_classes, samples.table.num_classes
    if known != given:
        raise UsageError(f"the model predicts {known} classes, the data has {given}; expected the data it was made for")
    num_images, size = len(samples), settings.batch
    groups = [range(first, min(first + size, num_images)) for first in range(0, num_images, size)][rank::num_ranks]
    total = sum(map(len, groups))
    threads = ThreadPoolExecutor(num_workers, "luma-eval") if num_workers else nullcontext()
    tally = RunningCounts(samples.table.num_classes)
    with inference(segmenter), threads as pool:
        for part in _counted(segmenter, samples, settings, groups, dtype, pool, num_workers):
            if isinstance(part, Unusable):
                tally.skipped.append((part.index, part.reason))
                check_skipped(tally.skipped, settings.skip_bad)
            else:
                tally.add(part)
            if on_image is not None:
                on_image(tally.num_done, total)
    return tally.total()


def check_skipped(skipped: Sequence[tuple[int, str]], allowed: int) -> None:
    """Raise BadSample for more unusable images than allowed; to be called again on the counts of all processes."""
    if len(skipped) > allowed:
        more = f" ({len(skipped)} so far)" if len(skipped) > 1 else ""
        raise BadSample(f"{skipped[-1][1]}{more}; correct it, or leave out up to N such images with --skip-bad N")


def _counted(
    segmenter: Segmenter,
    samples: Samples,
    settings: EvalSettings,
    groups: Sequence[range],
    dtype: torch.dtype,
    pool: Executor | None,
    num_workers: int,
) -> Iterator[Counts | Unusable]:
    """Counts of one image after the other, and those that cannot be used."""
    copies = OnePerThread(samples) if pool else None

    def read(index: int) -> Loaded | Unusable:
        return load(copies.get() if copies else samples, index, settings.resolution, tta=settings.tta)

    loaded = ahead(read, chain.from_iterable(groups), pool, num_ahead=num_workers + settings.batch)

    def counted(pair: tuple[Loaded, Labels] | tuple[Unusable, None]) -> Counts | Unusable:
        return pair[0] if pair[1] is None else count(*pair, samples.table.num_classes, settings.boundary)

    predicted = chain.from_iterable(_predicted(segmenter, loaded, len(group), settings, dtype) for group in groups)
    yield from ahead(counted, predicted, pool, num_ahead=1)  # an image is counted while the model sees the next


def _predicted(
    segmenter: Segmenter, loaded: Iterator[Loaded | Unusable], size: int, settings: EvalSettings, dtype: torch.dtype
) -> Iterator[tuple[Loaded, Labels] | tuple[Unusable, None]]:
    """The next `size` pairs with their predicted labels, None for unusable ones."""
    group = list(islice(loaded, size))
    usable = [pair for pair in group if isinstance(pair, Loaded)]
    views = [pair.views for pair in usable]
    labels = iter(predict_views(segmenter, views, dtype, settings.batch) if usable else [])
    return ((pair, next(labels)) if isinstance(pair, Loaded) else (pair, None) for pair in group)


def count(loaded: Loaded, predicted: Labels, num_classes: int, boundary: bool, *, unsaid: bool = False) -> Counts:
    """The counts of one image. boundary: also those of the outlines. unsaid: see `confusion_matrix`."""
    confusion = confusion_matrix(loaded.truth, predicted, num_classes, unsaid=unsaid)
    found = scores(confusion)
    height, width = loaded.truth.shape
    windows = sum(view.plan.num_windows for view in loaded.views)
    image = ImageScore(loaded.name, height, width, windows, found.miou, found.aacc)
    bands = boundary_counts(loaded.truth, predicted, num_classes) if boundary else None
    return Counts(confusion, bands, ((loaded.index, image),), ())


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], pool: Executor | None, num_ahead: int
) -> Iterator[Result]:
    """`work` of every item, in order, at most `num_ahead` of them started before they are needed.

    Without a pool each is done when it is needed. An error of `work` is raised when its turn comes.
    """
    if pool is None:
        yield from map(work, items)
        return
    waiting = iter(items)
    begun: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(waiting, num_ahead))
    try:
        while begun:
            first = begun.popleft()
            begun.extend(pool.submit(work, item) for item in islice(waiting, 1))
            yield first.result()
    finally:
        for left in begun:
            left.cancel()


class OnePerThread(Generic[Value]):
    """A copy of a value for every thread, made by pickling: open files are not shared."""

    def __init__(self, value: Value) -> None:
        self._pickled = pickle.dumps(value)
        self._local = threading.local()

    def get(self) -> Value:
        """The copy of the thread that asks."""
        if not hasattr(self._local, "value"):
            self._local.value = pickle.loads(self._pickled)
        value: Value = self._local.value
        return value


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
    """Everything that changes the scores, by name."""
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
    wrongly = (counts.confusion.sum(axis=0)[: len(right)] - right).tolist()
    missed = (counts.confusion.sum(axis=1) - right).tolist()
    columns = zip(table.names, right.tolist(), wrongly, missed, found.iou, found.accuracy, bands, strict=True)
    return tuple(ClassScore(*column) for column in columns)
