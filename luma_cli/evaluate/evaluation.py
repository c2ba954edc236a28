"""What a segmenter gets right on a split: predictions at the files' own size against their label maps.

Files are read and results counted by threads while the model computes. What is counted depends neither on the number of
threads nor on that of processes: images are dealt out in fixed groups, and one group shares forward passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import torch

from luma_cli.catalogue.datasets import Labels
from luma_cli.data.split import Samples
from luma_cli.errors import BadSample, UsageError
from luma_cli.evaluate.ahead import OnePerThread, ahead
from luma_cli.evaluate.confusion import Absent
from luma_cli.evaluate.counts import Counts, Tally
from luma_cli.evaluate.inference import inference, predict_views
from luma_cli.evaluate.sample_scores import Loaded, Unusable, count, load
from luma_cli.head.segmenter import Segmenter

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """How an evaluation is made. All but `batch` and `skip_bad` belong to the protocol.

    resolution: side of the windows in pixels. batch: windows per forward pass at most, and images whose windows may
    share one. tta: six sizes with and without a flip. boundary: boundary IoU as well. skip_bad: images that may be left
    out because they cannot be read. absent: what a class counts that occurs neither in truth nor prediction.
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
    """What process `rank` of `num_ranks` counts, on the device where the segmenter is; `merge` adds them up.

    Every image of the split belongs to exactly one process. The segmenter is left as it was found. dtype: float32, or
    that of autocast. num_workers: threads that read and count, 0 for none. on_image: called with images done and all
    images of this process. Raises BadSample for more than `skip_bad` unusable images, UsageError and Diverged.
    """
    _check_classes(segmenter, samples)
    groups = _groups(len(samples), settings.batch)[rank::num_ranks]
    total = sum(map(len, groups))
    tally = Tally(samples.table.num_classes)
    with inference(segmenter), _pool(num_workers) as pool:
        for part in _counted(segmenter, samples, settings, groups, dtype, pool, num_workers):
            if isinstance(part, Unusable):
                tally.skip(part.index, part.reason)
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


def _check_classes(segmenter: Segmenter, samples: Samples) -> None:
    known, given = segmenter.config.num_classes, samples.table.num_classes
    if known != given:
        raise UsageError(f"the model predicts {known} classes, the data has {given}; expected the data it was made for")


def _groups(num_images: int, size: int) -> list[range]:
    """Runs of `size` neighbouring images: the same whatever the number of processes."""
    return [range(first, min(first + size, num_images)) for first in range(0, num_images, size)]


def _pool(num_workers: int) -> ThreadPoolExecutor | nullcontext[None]:
    return ThreadPoolExecutor(num_workers, "luma-eval") if num_workers else nullcontext()


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
    predicted = chain.from_iterable(_predicted(segmenter, loaded, len(group), settings, dtype) for group in groups)
    counter = partial(_count, num_classes=samples.table.num_classes, boundary=settings.boundary)
    yield from ahead(counter, predicted, pool, num_ahead=1)  # an image is counted while the model sees the next


def _predicted(
    segmenter: Segmenter, loaded: Iterator[Loaded | Unusable], size: int, settings: EvalSettings, dtype: torch.dtype
) -> Iterator[tuple[Loaded | Unusable, Labels | None]]:
    """The next `size` pairs with their predicted labels, None for those that cannot be used."""
    group = list(islice(loaded, size))
    usable = [pair for pair in group if isinstance(pair, Loaded)]
    views = [pair.views for pair in usable]
    labels = iter(predict_views(segmenter, views, dtype, settings.batch) if usable else [])
    return ((pair, next(labels) if isinstance(pair, Loaded) else None) for pair in group)


def _count(pair: tuple[Loaded | Unusable, Labels | None], *, num_classes: int, boundary: bool) -> Counts | Unusable:
    loaded, labels = pair
    if isinstance(loaded, Unusable) or labels is None:
        return loaded if isinstance(loaded, Unusable) else Unusable(loaded.index, "no prediction")
    return count(loaded, labels, num_classes, boundary=boundary)
