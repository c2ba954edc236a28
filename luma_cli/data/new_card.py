"""A dataset card out of a folder of images and label files: what is seen there, each proposal with its reason.

Folders belong together when the names of their files do: `a_leftImg8bit.png` and `a_gtFine_labelIds.png`. A part of the
path that begins with train, val or test names the split; text files that list names do so within one folder.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from luma_cli.catalogue.datasets import MAX_CLASSES, SPLITS
from luma_cli.data.source import Folder
from luma_cli.errors import DataError, UsageError

MOST_READ = 2000  # label files, spread over all: a few seconds
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_NAME_FILES = re.compile(r"(class|label|categor|obj|color|colour|palette)[\w-]*\.(txt|names|csv)", re.IGNORECASE)
_VOID = frozenset({"void", "ignore", "ignored", "unlabelled", "unlabeled"})
_PLACE = re.compile(r"im(age|g)|photo|rgb|jpeg|label|ann|mask|gt|segm|target", re.IGNORECASE)
_LABEL_PLACE = re.compile(r"label|ann|mask|gt|seg|target", re.IGNORECASE)
_LIST = re.compile(r"(train|val|test)\.txt", re.IGNORECASE)


@dataclass(slots=True)
class _Top:
    """A folder of pictures, with those below it where it has the name of a split. Names are relative to it."""

    path: str
    split: str
    names: list[str] = field(default_factory=list)

    @property
    def recursive(self) -> bool:
        return any("/" in name for name in self.names)


@dataclass(frozen=True, slots=True)
class _Match:
    """Images and labels of one split, and the suffixes that turn one name into the other."""

    images: _Top
    labels: _Top
    image_suffix: str
    label_suffix: str
    num_pairs: int
    coloured: bool  # the labels are no values of classes


@dataclass(frozen=True, slots=True)
class NewCard:
    """The text of the card, and what was seen in one line for people."""

    text: str
    seen: str


def new_card(folder: Path) -> NewCard:
    """The card of the dataset in `folder`. Raises UsageError without a folder, DataError where no pairs are found."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; expected one with images and their label files")
    matches = _matches(folder)
    first = matches[0]
    values, palette, num_read, num_all = _values(folder, matches)
    lists = sorted(path for path in folder.rglob("*.txt") if _LIST.fullmatch(path.name)) if len(matches) == 1 else []
    pairs = sum(each.num_pairs for each in matches)
    lines = [
        f"# Written by `luma data new` from what is there: {pairs:,} images with label files. Correct what is wrong.",
        f"image_suffixes = {json.dumps(sorted({each.image_suffix for each in matches}))}",
        f"label_suffix = {json.dumps(first.label_suffix)}  # takes the place of the image's suffix",
        "",
        *_classes(folder, values, palette, f"{num_read:,} of {num_all:,} label files"),
        "",
        *_splits(folder, matches, lists),
    ]
    parts = ", ".join(f"{each.num_pairs:,} in {each.images.path}" for each in matches)
    return NewCard("\n".join(lines) + "\n", f"{pairs:,} images with labels ({parts}), {len(values)} label values")


def _tops(folder: Path) -> list[_Top]:
    """Every folder that holds pictures; those of one split under the same outer folder are one."""
    found: dict[tuple[str, str], _Top] = {}
    for name in sorted(Folder(folder).sizes("", recursive=True) or {}):
        if not name.lower().endswith(_PICTURES):
            continue
        parts = name.split("/")[:-1]
        depth, split = next(((at, split) for at, part in enumerate(parts, 1) if (split := _split(part))), (-1, ""))
        if depth < 0:
            depth = len(parts)
        elif depth < len(parts) and _PLACE.match(parts[depth]):  # train/images beside train/masks
            depth += 1
        top = "/".join(parts[:depth])
        found.setdefault((top, split), _Top(top, split)).names.append(name[len(top) + 1 :] if top else name)
    return list(found.values())


def _split(part: str) -> str:
    """The split that the name of a folder begins with, as `trainannot` and `validation` do; else empty."""
    return next((split for word, split in _SPLIT_WORDS.items() if part.lower().startswith(word)), "")


def _matches(folder: Path) -> list[_Match]:
    """One for each split that the card format knows; without any split, the best pair of folders as `train`."""
    tops = _tops(folder)
    best: dict[str, _Match] = {}
    for images in tops:
        for labels in tops:
            if images.split == labels.split and (match := _matched(folder, images, labels)):
                split = images.split or "train"
                if split not in best or _better(match) > _better(best[split]):
                    best[split] = match
    if coloured := next((each for each in best.values() if each.coloured), None):
        raise DataError(
            f"{folder / coloured.labels.path}: labels in colours or 16 bits, expected PNGs of 8 bits in one channel; "
            "docs/use/data.md says what a card can hold"
        )
    found = [best[split] for split in SPLITS if split in best]
    if not found:
        there = ", ".join(f"{top.path or '.'} ({len(top.names):,})" for top in tops[:6]) or "no pictures"
        raise DataError(
            f"{folder}: no images with label files of corresponding names; found: {there}; "
            "docs/use/data.md shows a card to write by hand"
        )
    suffix = found[0].label_suffix
    return [each for each in found if each.label_suffix == suffix]


def _better(match: _Match) -> tuple[bool, int]:
    return not match.coloured, match.num_pairs


def _matched(folder: Path, images: _Top, labels: _Top) -> _Match | None:
    """How the names correspond, if most images have a label file; images and labels in one folder differ by suffix."""
    pools: dict[str, list[str]] = defaultdict(list)
    for name in labels.names:
        if name.lower().endswith(".png"):
            pools[os.path.dirname(name)].append(name)
    one = next((name for name in images.names if os.path.dirname(name) in pools), None)
    if one is None:
        return None
    there = frozenset(labels.names)
    found: list[tuple[tuple[int, int, bool], _Match]] = []
    for other in pools[os.path.dirname(one)]:
        stem = os.path.commonprefix([os.path.splitext(one)[0], os.path.splitext(other)[0]]).rstrip("._-")
        if not os.path.basename(stem) or (images is labels and one == other):
            continue
        image_suffix, label_suffix = one[len(stem) :], other[len(stem) :]
        if images is labels and image_suffix == label_suffix:
            continue
        pairs = sum(
            name.endswith(image_suffix) and name.removesuffix(image_suffix) + label_suffix in there
            for name in images.names
        )
        if 2 * pairs <= len(images.names) / (2 if images is labels else 1):
            continue
        kind = _kind(folder / labels.path / other)
        unclear = kind == "image" or _kind(folder / images.path / one) == kind
        if unclear and (images is labels or not _is_label_place(labels.path, images.path)):
            continue
        match = _Match(images, labels, image_suffix, label_suffix, pairs, kind != "values")
        found.append(((int(kind == "values"), pairs, "train" not in label_suffix.lower()), match))
    return max(found, key=lambda each: each[0])[1] if found else None


def _is_label_place(labels: str, images: str) -> bool:
    """Whether the folder's name alone says that it holds labels, and the other's does not."""
    return bool(_LABEL_PLACE.search(labels)) and not _LABEL_PLACE.search(images)


def _kind(path: Path) -> str:
    """`values` for a PNG that can hold label values, else `image`."""
    try:
        with Image.open(path) as image:
            return "values" if image.format == "PNG" and image.mode in ("L", "P") else "image"
    except OSError:
        return "image"


def _values(folder: Path, matches: Sequence[_Match]) -> tuple[list[int], dict[int, tuple[int, ...]], int, int]:
    """Values that occur, colours of a palette by value, files read, and all files."""
    paths = [
        folder / match.labels.path / f"{name.removesuffix(match.image_suffix)}{match.label_suffix}"
        for match in matches
        for name in match.images.names
        if name.endswith(match.image_suffix)
    ]
    paths = [path for path in paths if path.is_file()]
    chosen = paths[:: -(-len(paths) // MOST_READ)]
    seen = np.zeros(256, dtype=bool)
    palette: dict[int, tuple[int, ...]] = {}
    for path in chosen:
        try:
            with Image.open(path) as image:
                if image.mode in ("L", "P"):
                    seen[np.unique(np.asarray(image))] = True
                colours = image.getpalette() if image.mode == "P" else None
        except OSError:
            continue  # `luma data check` names it
        palette = palette or {at: tuple(colours[3 * at : 3 * at + 3]) for at in range(len(colours or ()) // 3)}  # type: ignore[index]
    return np.flatnonzero(seen).tolist(), palette, len(chosen), len(paths)


def _classes(folder: Path, values: list[int], palette: Mapping[int, tuple[int, ...]], read: str) -> Iterator[str]:
    """The lines `classes` and `ignored`."""
    names, colours, source = _named(folder)
    others = [value for value in values if value != 255]
    # Beside few or far values, as in masks of 0 and 255, it is a class.
    ignore_255 = 255 in values and len(others) > 1 and max(others) < 4 * len(others) and 255 not in names
    void = [value for value, name in names.items() if name.lower() in _VOID]
    ignored = sorted({*void, *([255] if ignore_255 else [])})
    kept = sorted({*values, *names} - set(ignored))
    if not 1 <= len(kept) <= MAX_CLASSES:
        raise DataError(f"{folder}: {len(kept)} label values that could be classes, expected 1 to {MAX_CLASSES}")
    yield f"# {read} were read; their values: {', '.join(map(str, values))}."
    yield f"# Names are those of {source}." if source else "# No file with names was found: give the classes theirs."
    yield "classes = ["
    taken: Counter[str] = Counter()
    for value in kept:
        name = names.get(value, f"class_{value}")
        taken[name] += 1
        name = name if taken[name] == 1 else f"{name} {taken[name]}"
        colour = colours.get(value) or palette.get(value)
        end = f", colour = {json.dumps(list(colour))}" if colour else ""
        unseen = "" if value in values else "  # was not seen"
        yield f"  {{ name = {json.dumps(name, ensure_ascii=False)}, value = {value}{end} }},{unseen}"
    yield "]"
    why = (
        "255 beside many classes usually marks borders" if ignore_255 else "no value looks like one that does not count"
    )
    yield f"ignored = {ignored}  # {'called so in the file of names' if void else why}"


def _named(folder: Path) -> tuple[dict[int, str], dict[int, tuple[int, ...]], str]:
    """Names and colours by value from a file such as classes.txt, and its name.

    A line is a name, a value with a name, or a colour with a name in either order; what names no value counts from 0.
    """
    files = [path for path in sorted(folder.iterdir()) if _NAME_FILES.fullmatch(path.name) and path.is_file()]
    for path in files:
        names: dict[int, str] = {}
        colours: dict[int, tuple[int, ...]] = {}
        for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            words = [word for word in re.split(r"[\s,;:]+", line.strip()) if word]
            numbers = [int(word) for word in words if word.isdigit()]
            name = " ".join(word for word in words if not word.isdigit())
            if not name or name.startswith("#") or {"name", "r", "g", "b"} <= set(name.lower().split()):
                continue
            at = numbers.pop(0) if len(numbers) in (1, 4) else len(names)
            if at < 256:
                names[at] = name
                if len(numbers) == 3 and max(numbers) < 256:
                    colours[at] = tuple(numbers)
        if names:
            return names, colours, path.name
    return {}, {}, ""


def _splits(folder: Path, matches: Sequence[_Match], lists: Sequence[Path]) -> Iterator[str]:
    for match in matches:
        named = {_split(path.stem): path.relative_to(folder).as_posix() for path in lists}
        for split in [name for name in SPLITS if name in named] or [match.images.split or "train"]:
            yield f"[splits.{split}]"
            yield f"images = {json.dumps(match.images.path or '.', ensure_ascii=False)}"
            yield f"labels = {json.dumps(match.labels.path or '.', ensure_ascii=False)}"
            if split in named:
                yield f"list = {json.dumps(named[split], ensure_ascii=False)}"
            if match.images.recursive:
                yield "recursive = true"
            yield ""
    if "val" not in {each.images.split for each in matches} and not lists:
        yield "# Nothing to validate on was found, which training needs: add [splits.val] with images = and labels ="
