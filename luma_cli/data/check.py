"""Is a dataset whole and sound: counts, pairs, sizes, label values, how often each class occurs. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from luma_cli.catalogue.datasets import DatasetCard
from luma_cli.data.check_workers import OnSamples, tally_all
from luma_cli.data.drawn import MARKER
from luma_cli.data.locate import Root
from luma_cli.data.pairing import Pairing
from luma_cli.data.source import shown
from luma_cli.data.split import Split, split_of
from luma_cli.data.tally import Tally

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
