"""Is a dataset whole and sound: counts, pairs, sizes, label values, how often each class occurs. No torch.

What checking counts in some samples: label values, and every file that cannot be used. No torch.

Counts samples in several processes, with the same result as in one. No torch.

Each process is given the split once, so that it opens an archive once, and every so many samples of it. It ends by
itself when the one that started it has gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from luma_cli.catalogue.datasets import DatasetCard
from luma_cli.data.decode import decode_image, is_rotated, keep_freed_memory
from luma_cli.data.drawn import MARKER
from luma_cli.data.source import Root, shown
from luma_cli.data.split import Pairing, Split, foreign_text, split_of
from luma_cli.errors import BadSample, DataError

_NUM_VALUES = 256


def _zeros() -> NDArray[np.int64]:
    return np.zeros(_NUM_VALUES, dtype=np.int64)


@dataclass(slots=True)
class Tally:
    """Counts over samples.

    pixels [256]: pixels of each label value; images [256]: label files with each class index. problems: (index, text).
    ignored: indices of samples in which no pixel counts. rotated: indices of images with an EXIF rotation.
    """

    num_samples: int = 0
    pixels: NDArray[np.int64] = field(default_factory=_zeros)
    images: NDArray[np.int64] = field(default_factory=_zeros)
    problems: list[tuple[int, str]] = field(default_factory=list)
    ignored: list[int] = field(default_factory=list)
    rotated: list[int] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take in the counts of other samples; the order of additions does not matter."""
        self.num_samples += other.num_samples
        self.pixels += other.pixels
        self.images += other.images
        self.problems = sorted(self.problems + other.problems)
        self.ignored = sorted(self.ignored + other.ignored)
        self.rotated = sorted(self.rotated + other.rotated)


def tally(split: Split, indices: range) -> Tally:
    """Read, decode and count the samples `indices`."""
    found = Tally()
    for index in indices:
        found.num_samples += 1
        _count_image(split, index, found)
        _count_labels(split, index, found)
    return found


def _count_image(split: Split, index: int, found: Tally) -> None:
    try:
        data = split.image_files.read(split.pairs[index].image)
        decode_image(data, split.image_path(index))
    except BadSample as error:
        found.problems.append((index, str(error)))
        return
    if is_rotated(data):
        found.rotated.append(index)


def _count_labels(split: Split, index: int, found: Tally) -> None:
    try:
        values = split.values(index)
    except BadSample as error:
        # A file that is bad as an image is named once, though the size of its labels cannot be compared either.
        if (index, str(error)) not in found.problems:
            found.problems.append((index, str(error)))
        return
    pixels = np.bincount(values.reshape(-1), minlength=_NUM_VALUES)
    found.pixels += pixels
    found.images[np.unique(split.table.encode(np.flatnonzero(pixels).astype(np.uint8)))] += 1
    if foreign := split.table.foreign(values):
        share = pixels[list(foreign)].sum() / values.size
        found.problems.append(
            (index, f"{split.labels_path(index)}: {foreign_text(foreign)}, {share:.2%} of the pixels")
        )
    elif not pixels[[value for each in split.table.classes for value in each.values]].any():
        found.ignored.append(index)


OnSamples = Callable[[int], None]

_CHUNK = 16  # samples between two reports
_ALONE = 64  # starting a process takes as long as checking that many small images


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def tally_all(split: Split, num_workers: int, on_samples: OnSamples = lambda number: None) -> Tally:
    """The counts of the whole split. `on_samples` is called with how many samples were just done.

    Raises DataError when a process is killed.
    """
    chunks = [range(start, min(start + _CHUNK, len(split))) for start in range(0, len(split), _CHUNK)]
    total = Tally()
    alone = num_workers <= 1 or len(split) <= _ALONE
    with closing(_alone(split, chunks) if alone else _shared(split, chunks, num_workers)) as parts:
        for part in parts:
            total.add(part)
            on_samples(part.num_samples)
    return total


def _alone(split: Split, chunks: list[range]) -> Generator[Tally, None, None]:
    for chunk in chunks:
        yield tally(split, chunk)


def _shared(split: Split, chunks: list[range], num_workers: int) -> Generator[Tally, None, None]:
    shares = [share for worker in range(num_workers) if (share := chunks[worker::num_workers])]
    with _started(split, shares) as workers:
        left = {connection: len(share) for connection, share in zip(workers, shares, strict=True)}
        while left:
            for connection in wait(list(left)):
                assert isinstance(connection, Connection)
                yield _received(connection, workers[connection])
                left[connection] -= 1
                if not left[connection]:
                    del left[connection]


def _received(connection: Connection, worker: BaseProcess) -> Tally:
    try:
        part = connection.recv()
    except EOFError:
        worker.join()
        raise DataError(
            f"a checking process ended early (exit code {worker.exitcode}), perhaps for want of memory; try --workers 1"
        ) from None
    if isinstance(part, Exception):
        raise part
    assert isinstance(part, Tally)
    return part


@contextmanager
def _started(split: Split, shares: list[list[range]]) -> Iterator[dict[Connection, BaseProcess]]:
    """A process for each share, by the connection that it reports on; on the way out all of them are ended."""
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, BaseProcess] = {}
    try:
        for share in shares:
            reader, writer = context.Pipe(duplex=False)
            worker: BaseProcess = context.Process(target=_work, args=(split, share, writer), daemon=True)
            workers[reader] = worker
            with _without_interrupts():
                worker.start()
            writer.close()
        yield workers
    finally:
        for connection, worker in workers.items():
            connection.close()
            if worker.pid is not None:
                worker.terminate()
                worker.join()
                worker.close()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process started in here never sees Ctrl-C, which goes to the whole group: the first one ends the others."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(split: Split, share: list[range], reports: Connection) -> None:
    """Body of a process: report the tally of each chunk, or the failure that ends it."""
    keep_freed_memory()
    try:
        for chunk in share:
            reports.send(tally(split, chunk))
    except BrokenPipeError:
        return
    except DataError as error:
        reports.send(error)


# Of ADE20K 7% of the pixels are ignored, of Cityscapes about 11%.
SUSPICIOUS_IGNORED_SHARE = 0.3
_NAMED = 8


@dataclass(frozen=True, slots=True)
class ClassCount:
    """A class: how many pixels of the split it has, and in how many images it occurs."""

    name: str
    pixels: int
    images: int


@dataclass(frozen=True, slots=True)
class SplitReport:
    """What was found in one split.

    num_images: pairs of an image and its label file. expected: official number, 0 for unknown. problems: what must not
    be, each naming its file. warnings: what may be meant. pixels: of all label files that could be read.
    """

    split: str
    num_images: int
    expected: int
    identity: str
    fingerprint: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    classes: tuple[ClassCount, ...]
    pixels: int
    ignored_pixels: int

    @property
    def ignored_share(self) -> float:
        """Pixels that do not count, of all; 0 when there are none."""
        return self.ignored_pixels / self.pixels if self.pixels else 0.0


def check_pairs(
    card: DatasetCard, root: Root, pairing: Pairing, num_workers: int = 1, on_samples: OnSamples = lambda number: None
) -> SplitReport:
    """Read every file of a split, as `find_pairs` found them. The result does not depend on `num_workers`.

    on_samples: called with how many samples were just read. Raises DataError when a process is killed.
    """
    opened = split_of(card, pairing)
    found = tally_all(opened, num_workers, on_samples)
    drawn = is_drawn(root)
    return SplitReport(
        split=pairing.split,
        num_images=len(opened),
        expected=card.splits[pairing.split].count,
        identity=opened.identity,
        fingerprint=opened.fingerprint,
        problems=(
            *_count_problems(card, opened, drawn),
            *_pair_problems(pairing),
            *(text for _, text in found.problems),
        ),
        warnings=tuple(_warnings(opened, found, drawn)),
        classes=_class_counts(card, found),
        pixels=int(found.pixels.sum()),
        ignored_pixels=int(found.pixels[list(card.table.ignored)].sum()),
    )


def is_drawn(root: Root) -> bool:
    """Whether a note beside the data says that luma drew it, so that official numbers of images do not apply."""
    return any(_says_drawn(folder / MARKER) for folder in (root.place, root.place.parent))


def _says_drawn(note: Path) -> bool:
    try:
        return "luma drew these" in note.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _count_problems(card: DatasetCard, split: Split, drawn: bool) -> list[str]:
    expected = card.splits[split.name_of_split].count
    if drawn or not expected or len(split) == expected:
        return []
    return [f"{split.image_files.where('')}: {len(split):,} images with labels, expected {expected:,}"]


def _pair_problems(pairing: Pairing) -> list[str]:
    unlabelled = (
        f"{pairing.images.where(pair.image)}: no label file {pairing.labels.where(pair.labels)}"
        for pair in pairing.unlabelled
    )
    return [*unlabelled, *(f"{pairing.labels.where(name)}: a label file without image" for name in pairing.imageless)]


def _warnings(split: Split, found: Tally, drawn: bool) -> list[str]:
    told = ["drawn by luma, not the official dataset"] if drawn else []
    absent = [each.name for each in split.table.classes if not found.pixels[list(each.values)].any()]
    if absent:
        told.append(f"{_number(absent, 'class never occurs', 'classes never occur')}: {_some(absent)}")
    ignored = found.pixels[list(split.table.ignored)]
    share = ignored.sum() / max(1, found.pixels.sum())
    if share > SUSPICIOUS_IGNORED_SHARE:
        value = split.table.ignored[int(np.argmax(ignored))]
        told.append(
            f"{share:.0%} of the pixels are ignored, most by the value {value}; "
            "compare the values of classes and `ignored` with those in the label files"
        )
    if found.ignored:
        names = [split.name(index) for index in found.ignored]
        told.append(f"{_number(names, 'image has', 'images have')} only ignored pixels: {_some(names)}")
    if found.rotated:
        names = [split.name(index) for index in found.rotated]
        images = _number(names, "image has an EXIF rotation", "images have an EXIF rotation")
        told.append(f"{images}, which is not applied: {_some(names)}")
    return told


def _class_counts(card: DatasetCard, found: Tally) -> tuple[ClassCount, ...]:
    return tuple(
        ClassCount(each.name, int(found.pixels[list(each.values)].sum()), int(found.images[index]))
        for index, each in enumerate(card.table.classes)
    )


def _number(items: list[str], one: str, many: str) -> str:
    return f"{len(items):,} {one if len(items) == 1 else many}"


def _some(items: list[str]) -> str:
    return ", ".join(map(shown, items[:_NAMED])) + (f" and {len(items) - _NAMED:,} more" if len(items) > _NAMED else "")
