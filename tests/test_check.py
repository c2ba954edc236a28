"""Checking a dataset: counts against a plain loop, every bad file named, several processes, an end at any time."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from dataset_files import OWN_CARD, ade_files, encoded, picture, write_folder, write_zip
from PIL import Image

from luma_cli.catalogue.datasets import DatasetCard, load_card
from luma_cli.data import check
from luma_cli.data.check import SampleTally, SplitReport, check_pairs, is_drawn, with_shared
from luma_cli.data.drawn import write_sample
from luma_cli.data.source import find_root
from luma_cli.data.split import Split, find_pairs, open_split
from luma_cli.errors import DataError

ADE = "ADEChallengeData2016"
GOOD_LABELS = np.array([[0, 1], [2, 255]] * 3)
GOOD = {"images/good.jpg": encoded(picture(6, 2, 0), "JPEG"), "masks/good_mask.png": encoded(GOOD_LABELS)}


@pytest.fixture(scope="module")
def ade() -> DatasetCard:
    return load_card("ade20k")


def checked(card: DatasetCard, place: Path | None, split: str = "train", workers: int = 1) -> SplitReport:
    root = find_root(card, place)
    return check_pairs(card, root, find_pairs(card, root, split), workers)


def own(folder: Path, files: dict[str, bytes], card: str = OWN_CARD) -> DatasetCard:
    write_folder(folder, {"own.toml": card.encode(), **files})
    return load_card(folder / "own.toml")


def test_counts_are_those_of_a_plain_loop(tmp_path: Path, ade: DatasetCard) -> None:
    write_folder(tmp_path, ade_files(ade.table))
    split = open_split(ade, find_root(ade, tmp_path), "train")
    labels = [split.labels(index) for index in range(len(split))]
    report = checked(ade, tmp_path)
    assert report.num_images == 5
    assert report.pixels == sum(each.size for each in labels)
    assert report.ignored_pixels == sum(int((each == 255).sum()) for each in labels)
    for index, each in enumerate(report.classes):
        assert each.name == ade.table.names[index]
        assert each.pixels == sum(int((label == index).sum()) for label in labels)
        assert each.images == sum(bool((label == index).any()) for label in labels)
    assert report.identity == split.identity
    assert report.fingerprint == split.fingerprint


def test_a_class_of_two_values_counts_an_image_once(tmp_path: Path) -> None:
    more = {"images/b.jpg": GOOD["images/good.jpg"], "masks/b_mask.png": encoded(np.full((6, 2), 2))}
    report = checked(own(tmp_path, {**GOOD, **more}), None)
    assert [(each.name, each.pixels, each.images) for each in report.classes] == [("background", 3, 1), ("cat", 18, 2)]
    assert report.ignored_share == 3 / 24
    assert report.problems == ()
    assert report.warnings == ()


def bad_files() -> dict[str, tuple[bytes, bytes, str]]:
    """Name -> image, labels, what is said of which file."""
    image, labels = GOOD["images/good.jpg"], GOOD["masks/good_mask.png"]
    rgba = Image.fromarray(picture(6, 2, 0))
    rgba.putalpha(9)
    noise = encoded(np.random.default_rng(0).integers(0, 256, (60, 60, 3)), "JPEG")
    return {
        "truncated": (noise[:2000], encoded(np.zeros((60, 60))), "images/truncated.jpg: damaged"),
        "value": (image, encoded(np.full((6, 2), 77)), "masks/value_mask.png: label value 77 in no class"),
        "pixel": (encoded([[[1, 2, 3]]], "JPEG"), encoded([[0]]), "images/pixel.jpg: 1 x 1 pixels"),
        "size": (image, encoded(np.zeros((3, 3))), "masks/size_mask.png: 3 x 3 pixels, but its image"),
        "alpha": (encoded(rgba), labels, "images/alpha.jpg: has transparent pixels"),
        "cmyk": (encoded(picture(6, 2, 0), "JPEG", "CMYK"), labels, "images/cmyk.jpg: colour mode CMYK"),
        "deep": (image, encoded(Image.new("I;16", (2, 6), 300)), "masks/deep_mask.png: values from 300 to 300"),
        "colour": (image, encoded(picture(6, 2, 0)), "masks/colour_mask.png: a label file of colour mode RGB"),
        "empty": (image, b"", "masks/empty_mask.png: no PNG, TIFF"),
    }


@pytest.mark.parametrize("zipped", [False, True])
def test_every_bad_file_is_named(tmp_path: Path, zipped: bool) -> None:
    files = dict(GOOD)
    for name, (image, labels, _) in bad_files().items():
        files[f"images/{name}.jpg"], files[f"masks/{name}_mask.png"] = image, labels
    files["images/alone.jpg"] = GOOD["images/good.jpg"]
    files["masks/lonely_mask.png"] = GOOD["masks/good_mask.png"]
    if zipped:
        write_zip(tmp_path / "own.zip", files)
        files = {}
    report = checked(own(tmp_path, files, "archives = ['own.zip']\n" + OWN_CARD), None)
    said = [text.replace(str(tmp_path), "").replace("/own.zip: ", "/") for text in report.problems]
    expected = {f"/{text}" for _, _, text in bad_files().values()}
    expected |= {"/images/alone.jpg: no label file", "/masks/lonely_mask.png: a label file without image"}
    expected |= {"/masks/pixel_mask.png: 1 x 1 pixels"}
    assert {start for start in expected if any(text.startswith(start) for text in said)} == expected
    assert {text.split(": ")[0] for text in said} == {start.split(": ")[0] for start in expected}


def test_numbers_of_images(tmp_path: Path, ade: DatasetCard) -> None:
    write_folder(tmp_path, ade_files(ade.table))
    assert [text.partition(": ")[2] for text in checked(ade, tmp_path).problems] == [
        "5 images with labels, expected 20,210"
    ]
    card = own(tmp_path / "own", GOOD, OWN_CARD.replace("recursive", "count = 2\nrecursive"))
    assert "1 images with labels, expected 2" in checked(card, None).problems[0]


def test_a_drawn_dataset_need_not_have_the_official_number(tmp_path: Path, ade: DatasetCard) -> None:
    folder = write_sample("ade20k", tmp_path / "drawn", 4, short_side=32).folder
    for place in (folder, folder / ADE, folder / f"{ADE}.zip"):
        report = checked(ade, place, "val")
        assert report.problems == ()
        assert report.warnings[0] == "drawn by luma, not the official dataset"
        assert report.identity.startswith("ade20k#")
    (folder / "README.txt").write_bytes(b"\xff")
    assert not is_drawn(find_root(ade, folder))
    assert len(checked(ade, folder, "val").problems) == 1


def test_suspicious_shares_and_rotations_are_noted(tmp_path: Path) -> None:
    """`ignored = [0, 255]` where 0 is a class: the mistake that costs most on Cityscapes train ids."""
    card = OWN_CARD.replace('["background", {', "[{").replace("[splits", "ignored = [0, 255]\n[splits", 1)
    exif = Image.Exif()
    exif[0x0112] = 3
    values = np.zeros((6, 2), dtype=np.uint8)
    files = {
        "images/a.jpg": encoded(picture(6, 2, 0), "JPEG", exif=exif),
        "masks/a_mask.png": encoded(values),
        "images/b.jpg": GOOD["images/good.jpg"],
        "masks/b_mask.png": encoded(values + 1),
    }
    report = checked(own(tmp_path, files, card), None)
    assert report.problems == ()
    assert report.warnings == (
        "50% of the pixels are ignored, most by the value 0; compare the values of classes and `ignored` with those in "
        "the label files",
        "1 image has only ignored pixels: a",
        "1 image is tagged as turned: a; training and evaluation take the stored pixels, on which labels are drawn, "
        "`luma predict` turns them",
    )
    files.pop("images/b.jpg")
    files.pop("masks/b_mask.png")
    assert checked(own(tmp_path / "one", files, card), None).warnings[0] == "1 class never occurs: cat"


def test_a_mask_of_0_and_255_is_asked_about(tmp_path: Path) -> None:
    """Two classes and the default `ignored = 255`: the foreground would not count, and mIoU be 100."""
    files = {"images/a.jpg": GOOD["images/good.jpg"], "masks/a_mask.png": encoded(np.array([[0, 255], [0, 0]] * 3))}
    assert checked(own(tmp_path, files), None).warnings == (
        "1 class never occurs: cat; and 255, which is ignored, covers 25.00% of the pixels: is 255 cat? then give that "
        "class value = 255 and the card ignored = []",
    )
    card = OWN_CARD.replace("values = [1, 2]", "value = 255")
    assert checked(own(tmp_path, files, card), None).classes[1].images == 1


def test_strange_tags_are_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 9
    files = {"images/a.jpg": encoded(picture(6, 2, 0), "JPEG", exif=exif), "masks/a_mask.png": encoded(GOOD_LABELS)}
    assert checked(own(tmp_path, files), None).warnings == (
        "1 image has a tag Orientation that means nothing: a; it is not 1 to 8 and taken for none",
    )


def test_what_concerns_two_splits(tmp_path: Path) -> None:
    """An image of both under another name, and a class that val alone has."""
    card = OWN_CARD + '[splits.val]\nimages = "images2"\nlabels = "masks2"\n'
    files = {**GOOD, "images2/b.jpg": GOOD["images/good.jpg"], "masks2/b_mask.png": encoded(GOOD_LABELS)}
    files["masks/good_mask.png"] = encoded(GOOD_LABELS * 0)
    loaded = own(tmp_path, files, card)
    train, val = with_shared([checked(loaded, None, split) for split in ("train", "val")])
    assert train.warnings == ("1 class never occurs: cat",)
    assert val.warnings == ("1 image is in train and in val: b", "1 class never occurs in train: cat")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, ade: DatasetCard) -> Path:
    """Enough pairs that processes are started, two of them bad."""
    folder = tmp_path_factory.mktemp("large")
    files = ade_files(ade.table, 100, 70)
    files[f"{ADE}/images/training/ADE_train_00000090.jpg"] = b"?"
    files[f"{ADE}/annotations/training/ADE_train_00000007.png"] = b"?"
    write_zip(folder / f"{ADE}.zip", files)
    return folder


def test_processes_change_nothing(large: Path, ade: DatasetCard) -> None:
    alone, shared = checked(ade, large), checked(ade, large, workers=2)
    assert alone == shared
    assert [text.split(":")[1].strip()[-12:-4] for text in shared.problems[1:]] == ["00000007", "00000090"]


def test_every_sample_is_reported_as_it_is_done(large: Path, ade: DatasetCard) -> None:
    root, numbers = find_root(ade, large), list[int]()
    check_pairs(ade, root, find_pairs(ade, root, "train"), 2, numbers.append)
    assert sum(numbers) == 100


def dies(split: Split, indices: range) -> SampleTally:
    if indices.start >= 32:
        os.kill(os.getpid(), signal.SIGKILL)
    return SampleTally(num_samples=len(indices))


def fails(split: Split, indices: range) -> SampleTally:
    raise DataError("archive gone")


@pytest.mark.parametrize(("body", "said"), [(dies, r"exit code -9.*--workers 1"), (fails, "archive gone")])
def test_a_process_that_ends_is_an_error_and_ends_the_others(
    large: Path, ade: DatasetCard, monkeypatch: pytest.MonkeyPatch, body: object, said: str
) -> None:
    """Started by fork here, so that the children run the replaced body."""
    context = check.multiprocessing.get_context("fork")
    monkeypatch.setattr(check.multiprocessing, "get_context", lambda method: context)
    monkeypatch.setattr(check, "tally", body)
    split = open_split(ade, find_root(ade, large), "train")
    with pytest.raises(DataError, match=said):
        check.tally_all(split, 2)
    assert check.multiprocessing.active_children() == []
