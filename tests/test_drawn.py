"""Drawn datasets: the official layout, as folders and archives; the same bytes for the same seed; no class is rare."""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from luma_cli.catalogue.datasets import load_card
from luma_cli.data import drawn as module
from luma_cli.data import scenes
from luma_cli.data.drawn import write_sample
from luma_cli.data.source import find_root
from luma_cli.data.split import open_split
from luma_cli.errors import UnknownName, UsageError

NAMES = ("ade20k", "cityscapes")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("drawn")
    return {name: write_sample(name, folder / name, 20, short_side=64).folder for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_archives_hold_the_folders(name: str, samples: dict[str, Path]) -> None:
    unpacked = {
        path.relative_to(samples[name]).as_posix(): path.read_bytes()
        for path in samples[name].rglob("*")
        if path.is_file() and path.suffix in (".png", ".jpg")
    }
    archived = {}
    for archive in samples[name].glob("*.zip"):
        with ZipFile(archive) as file:
            archived.update({entry: file.read(entry) for entry in file.namelist() if not entry.endswith("/")})
            entries = file.namelist()
            assert all(f"{Path(entry).parent.as_posix()}/" in entries for entry in entries if "/" in entry[:-1])
    assert archived == unpacked
    assert len(unpacked) == (40 if name == "ade20k" else 60)


def test_official_names(samples: dict[str, Path]) -> None:
    ade, street = samples["ade20k"], samples["cityscapes"]
    assert {path.name for path in ade.glob("*.zip")} == {"ADEChallengeData2016.zip"}
    assert (ade / "ADEChallengeData2016/images/training/ADE_train_00000016.jpg").is_file()
    assert (ade / "ADEChallengeData2016/annotations/validation/ADE_val_00000004.png").is_file()
    assert {path.name for path in street.glob("*.zip")} == {
        "leftImg8bit_trainvaltest.zip",
        "gtFine_trainvaltest.zip",
    }
    assert (street / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png").is_file()
    assert (street / "gtFine/val/lindau/lindau_000001_000019_gtFine_labelIds.png").is_file()
    assert "not ADE20K" in (ade / "README.txt").read_text()
    assert "not Cityscapes" in (street / "README.txt").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_is_read_as_the_official_one(name: str, samples: dict[str, Path]) -> None:
    card = load_card(name)
    root = find_root(card, samples[name])
    for split, number in (("train", 16), ("val", 4)):
        read = open_split(card, root, split)
        assert len(read) == number
        for index in range(number):
            assert read.labels(index).shape == read.image(index).shape[:2]


@pytest.mark.parametrize(("name", "drawn"), [("ade20k", scenes.ADE20K), ("cityscapes", scenes.CITYSCAPES)])
def test_classes_are_those_of_the_card(name: str, drawn: dict[str, int], samples: dict[str, Path]) -> None:
    card = load_card(name)
    for each, value in drawn.items():
        found = next(known for known in card.table.classes if value in known.values)
        assert each in found.name
    labels = [np.array(Image.open(path)) for path in samples[name].rglob("*.png") if is_label(path)]
    counts = [sum(bool((each == value).any()) for each in labels) for value in drawn.values()]
    assert min(counts) >= 3, "no class is rare"
    assert {int(value) for each in labels for value in np.unique(each)} - set(drawn.values()), "some do not count"


def header(path: Path) -> tuple[tuple[int, int], str]:
    with Image.open(path) as image:
        return image.size, image.mode


def is_label(path: Path) -> bool:
    return "annotations" in path.parts or path.name.endswith("labelIds.png")


def test_pictures_differ_in_size_and_some_are_upright(samples: dict[str, Path]) -> None:
    sizes = [header(path)[0] for path in samples["ade20k"].rglob("*.jpg")]
    assert len(set(sizes)) > 10
    assert any(width < height for width, height in sizes)
    assert any(width > height for width, height in sizes)
    assert {header(path)[0] for path in samples["cityscapes"].rglob("*_leftImg8bit.png")} == {(128, 64)}


def test_some_jpegs_are_grey(tmp_path: Path) -> None:
    write_sample("ade20k", tmp_path / "many", 60, short_side=32)
    modes = [header(path)[1] for path in (tmp_path / "many").rglob("*.jpg")]
    assert 0 < modes.count("L") < 15


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bytes(name: str, tmp_path: Path) -> None:
    digests = []
    for folder, seed in (("one", 3), ("two", 3), ("three", 4)):
        archives = write_sample(name, tmp_path / folder, 4, seed, short_side=32).archives
        digests.append([hashlib.sha256(archive.read_bytes()).hexdigest() for archive in archives])
    assert digests[0] == digests[1] != digests[2]


def test_a_picture_does_not_depend_on_their_number(tmp_path: Path) -> None:
    first = "ADEChallengeData2016/images/training/ADE_train_00000001.jpg"
    few, many = (write_sample("ade20k", tmp_path / str(n), n, short_side=32).folder for n in (2, 10))
    assert (few / first).read_bytes() == (many / first).read_bytes()


@pytest.mark.parametrize(("number", "num_val"), [(2, 1), (7, 1), (10, 2), (64, 12)])
def test_a_fifth_is_for_validation(number: int, num_val: int, tmp_path: Path) -> None:
    written = write_sample("ade20k", tmp_path / "new" / "folder", number, short_side=32)
    assert (written.num_train, written.num_val) == (number - num_val, num_val)


def test_nothing_is_left_of_an_interrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_sample("ade20k", tmp_path / "new", 2)
    assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path, tmp_path / "file"):
        with pytest.raises(UsageError, match="holds something already"):
            write_sample("ade20k", folder, 2)
    with pytest.raises(UnknownName, match="choose ade20k or cityscapes"):
        write_sample("coco", tmp_path / "new", 2)
    with pytest.raises(UsageError, match="at least 2"):
        write_sample("ade20k", tmp_path / "new", 1)
    with pytest.raises(UsageError, match="at least 32"):
        write_sample("ade20k", tmp_path / "new", 2, short_side=8)
    assert not (tmp_path / "new").exists()
    assert write_sample("ade20k", tmp_path / "empty", 2, short_side=32).num_train == 1
