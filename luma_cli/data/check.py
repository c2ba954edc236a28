"""Checks a dataset: number of images, pairs, sizes, label values, how often each class occurs. No torch.

Samples can be counted by several processes. Each opens the split once and counts every so many chunks of it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from luma_cli.catalogue.datasets import DatasetCard
from luma_cli.data.decode import decode_image, keep_freed_memory
from luma_cli.data.drawn import MARKER
from luma_cli.data.source import Root, shown
from luma_cli.data.split import Pairing, Split, foreign_text, split_of
from luma_cli.errors import BadSample, DataError

# Of ADE20K 7% of the pixels are ignored, of Cityscapes about 11%.
SUSPICIOUS_IGNORED_SHARE = 0.3
_NAMED = 8  # names in one warning
_NUM_VALUES = 256
_CHUNK = 16  # samples between two reports
_ALONE = 64  # starting a process takes as long as checking that many small images

# What a sample may be noted for: of one, of several, what it means.
_NOTES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "ignored": ("image has only ignored pixels", "images have only ignored pixels", ""),
        "turned": (
            "image is tagged as turned",
            "images are tagged as turned",
            "; training and evaluation take the stored pixels, on which labels are drawn, `luma predict` turns them",
        ),
        "strange": (
            "image has a tag Orientation that means nothing",
            "images have a tag Orientation that means nothing",
            "; it is not 1 to 8 and taken for none",
        ),
    }
)
OnSamples = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ClassCount:
    """A class: how many pixels of the split it has, and in how many images it occurs."""

    name: str
    pixels: int
    images: int


@dataclass(frozen=True, slots=True)
class SplitReport:
    """The result for one split.

    num_images: pairs of an image and its label file. official_images: None where unknown. problems: errors, each naming
    its file. warnings: what may be intended. pixels: of all label files that could be read. digests: of image files,
    and a name for each.
    """

    JSON_ALSO: ClassVar = ("ignored_share",)

    split: str
    num_images: int = field(metadata={"json": "images"})
    official_images: int | None
    identity: str
    fingerprint: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    classes: tuple[ClassCount, ...]
    pixels: int
    ignored_pixels: int
    digests: Mapping[bytes, str] = field(repr=False, metadata={"json": None})

    @property
    def ignored_share(self) -> float:
        """Share of the pixels that are ignored, 0 to 1; 0 when there are none."""
        return self.ignored_pixels / self.pixels if self.pixels else 0.0


def check_pairs(
    card: DatasetCard, root: Root, pairing: Pairing, num_workers: int = 1, on_samples: OnSamples = lambda number: None
) -> SplitReport:
    """Read every file of a split, as `find_pairs` found them. The result does not depend on `num_workers`.

    on_samples: called with how many samples were just read. Raises DataError when a process is killed.
    """
    split = split_of(card, pairing)
    found = tally_all(split, num_workers, on_samples)
    drawn, expected = is_drawn(root), card.splits[pairing.split].count
    problems = []
    if expected and len(split) != expected and not drawn:
        problems.append(f"{pairing.images.where('')}: {len(split):,} images with labels, expected {expected:,}")
    for pair in pairing.unlabelled:
        problems.append(f"{pairing.images.where(pair.image)}: no label file {pairing.labels.where(pair.labels)}")
    problems += [f"{pairing.labels.where(name)}: a label file without image" for name in pairing.imageless]
    classes = (
        ClassCount(each.name, int(found.pixels[list(each.values)].sum()), int(images))
        for each, images in zip(card.table.classes, found.images, strict=False)
    )
    return SplitReport(
        split=pairing.split,
        num_images=len(split),
        official_images=expected or None,
        identity=split.identity,
        fingerprint=split.fingerprint,
        problems=(*problems, *(text for _, text in found.problems)),
        warnings=tuple(_warnings(split, found, drawn)),
        classes=tuple(classes),
        pixels=int(found.pixels.sum()),
        ignored_pixels=int(found.pixels[list(card.table.ignored)].sum()),
        digests={digest: split.name(index) for index, digest in sorted(found.digests.items(), reverse=True)},
    )


def with_shared(reports: Sequence[SplitReport]) -> list[SplitReport]:
    """The reports of one dataset, with warnings about splits together: equal images, classes not trained."""
    noted: list[SplitReport] = []
    for report in reports:
        warnings = list(report.warnings)
        for other in noted:
            if names := [name for digest, name in report.digests.items() if digest in other.digests]:
                both = f"in {other.split} and in {report.split}"
                warnings.append(_listed(sorted(names), f"image is {both}", f"images are {both}"))
            if other.split == "train":
                pairs = zip(other.classes, report.classes, strict=True)
                if names := [here.name for there, here in pairs if here.images and not there.images]:
                    warnings.append(_listed(names, "class never occurs in train", "classes never occur in train"))
        noted.append(replace(report, warnings=tuple(warnings)))
    return noted


def is_drawn(root: Root) -> bool:
    """Whether a note beside the data says that luma drew it; official numbers of images do not apply then."""
    for folder in (root.place, root.place.parent):
        try:
            if "luma drew these" in (folder / MARKER).read_text(encoding="utf-8"):
                return True
        except (OSError, UnicodeDecodeError):
            continue
    return False


def _warnings(split: Split, found: SampleTally, drawn: bool) -> Iterator[str]:
    if drawn:
        yield "drawn by luma, not the official dataset"
    absent = [each.name for each in split.table.classes if not found.pixels[list(each.values)].any()]
    ignored = found.pixels[list(split.table.ignored)]
    share = ignored.sum() / max(1, found.pixels.sum())
    most = split.table.ignored[int(np.argmax(ignored))] if share else -1
    # A mask of 0 and 255, most likely.
    swallowed = bool(share and absent and len(absent) == split.table.num_classes - 1)
    if swallowed:
        name = absent[0] if len(absent) == 1 else f"one of {', '.join(absent[:_NAMED])}"
        one, many = "class never occurs", "classes never occur"
        yield (
            f"{_listed(absent, one, many)}; and {most}, which is ignored, covers {share:.2%} of the pixels: is {most} "
            f"{name}? then give that class value = {most} and the card ignored = []"
        )
    elif absent:
        yield _listed(absent, "class never occurs", "classes never occur")
    if share > SUSPICIOUS_IGNORED_SHARE and not swallowed:
        yield (
            f"{share:.0%} of the pixels are ignored, most by the value {most}; compare the values of classes and "
            "`ignored` with those in the label files"
        )
    for kind, (one, many, explained) in _NOTES.items():
        if names := [split.name(index) for index in sorted(found.notes[kind])]:
            yield _listed(names, one, many) + explained


def _listed(names: list[str], one: str, many: str) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{len(names):,} {one if len(names) == 1 else many}: {', '.join(map(shown, names[:_NAMED]))}{more}"


def _zeros() -> NDArray[np.int64]:
    return np.zeros(_NUM_VALUES, dtype=np.int64)


@dataclass(slots=True)
class SampleTally:
    """Counts over samples.

    pixels [256]: pixels of each label value; images [256]: label files with each class index. problems: (index, text).
    notes: indices of samples by the kind of note. digests: of image files by index.
    """

    num_samples: int = 0
    pixels: NDArray[np.int64] = field(default_factory=_zeros)
    images: NDArray[np.int64] = field(default_factory=_zeros)
    problems: list[tuple[int, str]] = field(default_factory=list)
    notes: dict[str, list[int]] = field(default_factory=lambda: {kind: [] for kind in _NOTES})
    digests: dict[int, bytes] = field(default_factory=dict)

    def add(self, other: SampleTally) -> None:
        """Add the counts of other samples; the order of additions does not matter."""
        self.num_samples += other.num_samples
        self.pixels += other.pixels
        self.images += other.images
        self.problems = sorted(self.problems + other.problems)
        self.notes = {kind: indices + other.notes[kind] for kind, indices in self.notes.items()}
        self.digests |= other.digests


def tally(split: Split, indices: range) -> SampleTally:
    """Read, decode and count the samples `indices`."""
    found = SampleTally()
    for index in indices:
        found.num_samples += 1
        _count_image(split, index, found)
        _count_labels(split, index, found)
    return found


def _count_image(split: Split, index: int, found: SampleTally) -> None:
    try:
        data = split.image_files.read(split.pairs[index].image)
        found.digests[index] = hashlib.blake2b(data, digest_size=16).digest()
        photo = decode_image(data, split.image_path(index))
    except BadSample as error:
        found.problems.append((index, str(error)))
        return
    if photo.orientation != 1:
        found.notes["turned" if photo.orientation else "strange"].append(index)


def _count_labels(split: Split, index: int, found: SampleTally) -> None:
    try:
        values = split.values(index)
    except BadSample as error:
        # A bad image also fails the comparison of sizes; it is named once.
        if (index, str(error)) not in found.problems:
            found.problems.append((index, str(error)))
        return
    pixels = np.bincount(values.reshape(-1), minlength=_NUM_VALUES)
    found.pixels += pixels
    found.images[np.unique(split.table.encode(np.flatnonzero(pixels).astype(np.uint8)))] += 1
    if foreign := split.table.foreign(values):
        share = pixels[list(foreign)].sum() / values.size
        text = f"{split.labels_path(index)}: {foreign_text(foreign)}, {share:.2%} of the pixels"
        found.problems.append((index, text))
    elif not pixels[[value for each in split.table.classes for value in each.values]].any():
        found.notes["ignored"].append(index)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def tally_all(split: Split, num_workers: int, on_samples: OnSamples = lambda number: None) -> SampleTally:
    """The counts of the whole split. `on_samples` is called with how many samples were just done.

    Raises DataError when a process is killed.
    """
    chunks = [range(start, min(start + _CHUNK, len(split))) for start in range(0, len(split), _CHUNK)]
    alone = num_workers <= 1 or len(split) <= _ALONE
    total = SampleTally()
    parts = (tally(split, chunk) for chunk in chunks) if alone else _shared(split, chunks, num_workers)
    with closing(parts):  # ends the processes at once when counting is interrupted
        for part in parts:
            total.add(part)
            on_samples(part.num_samples)
    return total


def _shared(split: Split, chunks: list[range], num_workers: int) -> Generator[SampleTally, None, None]:
    with _started(split, [share for worker in range(num_workers) if (share := chunks[worker::num_workers])]) as workers:
        left = dict(workers)
        while left:
            for connection in wait(list(left)):
                assert isinstance(connection, Connection)
                try:
                    part = connection.recv()
                except EOFError:
                    left[connection].join()
                    code = left[connection].exitcode
                    raise DataError(
                        f"a checking process ended early (exit code {code}), perhaps out of memory; try --workers 1"
                    ) from None
                if isinstance(part, DataError):
                    raise part
                if part is None:
                    del left[connection]
                else:
                    yield part


@contextmanager
def _started(split: Split, shares: list[list[range]]) -> Iterator[dict[Connection, BaseProcess]]:
    """A process for each share, by the connection that it reports on; all are ended on the way out."""
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, BaseProcess] = {}
    try:
        for share in shares:
            reader, writer = context.Pipe(duplex=False)
            worker: BaseProcess = context.Process(target=_work, args=(split, share, writer), daemon=True)
            with _signals_held():
                worker.start()
                workers[reader] = worker
            writer.close()
        yield workers
    finally:
        for connection, worker in workers.items():
            connection.close()
            worker.kill()  # it holds nothing that needs closing
            worker.join()
            worker.close()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect after the block: raised within `start`, they would leave a process unnoted.

    A process started inside never sees Ctrl-C, which goes to the whole group, because it inherits the mask. The mask
    alone does not protect this process: threads of numerical libraries take signals too.
    """
    if threading.current_thread() is not threading.main_thread():  # others get no signals and may set no handler
        yield
        return
    held: list[int] = []
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in handlers:
        signal.signal(each, lambda number, _: held.append(number))
    resource_tracker.ensure_running()  # started by the first process otherwise, and its start unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for each, handler in handlers.items():
            signal.signal(each, handler)
        for number in held:
            signal.raise_signal(number)


def _work(split: Split, share: list[range], reports: Connection) -> None:
    """Body of a process: report the tally of each chunk, then None; or the failure that ends it."""
    keep_freed_memory()
    try:
        for chunk in share:
            reports.send(tally(split, chunk))
        reports.send(None)
    except BrokenPipeError:
        return  # the first process has gone
    except DataError as error:
        reports.send(error)
