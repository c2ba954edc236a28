"""`luma data new`: a card of every usual layout that `luma data check` then accepts."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from luma_cli.catalogue.datasets import load_card
from luma_cli.cli.app import run

USUAL = (0, 1, 2, 3, 255)
LAYOUTS = {
    "one folder each": [("images/a.jpg", "labels/a.png"), ("images/b.jpg", "labels/b.png")],
    "mmsegmentation": [
        (f"img_dir/{split}/{n}.jpg", f"ann_dir/{split}/{n}.png") for split in ("train", "val") for n in "abc"
    ],
    "CamVid": [(f"{split}/{n}.png", f"{split}annot/{n}.png") for split in ("train", "val") for n in ("01", "02")],
    "Cityscapes": [
        (
            f"leftImg8bit/{split}/{city}/{city}_0_1_leftImg8bit.png",
            f"gtFine/{split}/{city}/{city}_0_1_gtFine_labelIds.png",
        )
        for split, city in (("train", "ulm"), ("train", "bonn"), ("val", "jena"))
    ],
    "ADE20K": [
        (f"images/{split}/x_{n}.jpg", f"annotations/{split}/x_{n}.png")
        for split in ("training", "validation")
        for n in "12"
    ],
    "splits outside": [
        (f"{split}/images/{n}.jpg", f"{split}/masks/{n}.png") for split in ("train", "valid") for n in "12"
    ],
    "suffix": [(f"{n}.jpg", f"{n}_mask.png") for n in "abcd"],
}


def write(folder: Path, pairs: list[tuple[str, str]], values: tuple[int, ...] = USUAL) -> None:
    for image, labels in pairs:
        for name in (image, labels):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 10, 3), dtype=np.uint8)).save(folder / image)
        Image.fromarray(np.resize(np.array(values, np.uint8), (8, 10))).save(folder / labels)


def made(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> Path:
    """The card, once the command that is proposed next has passed."""
    assert run(["data", "new", str(folder), *more]) == 0
    said = capsys.readouterr()
    command = shlex.split(said.err.rpartition("next: luma ")[2])
    assert run(command) == 0
    capsys.readouterr()
    return Path(said.out.strip())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_whole(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my data"
    write(folder, LAYOUTS[layout])
    card = load_card(made(folder, capsys))
    assert card.name == "my-data"
    assert card.table.names == ("class_0", "class_1", "class_2", "class_3")
    assert card.table.ignored == (255,)
    assert set(card.splits) == ({"train", "val"} if "val" in str(LAYOUTS[layout]) else {"train"})


def test_masks_of_0_and_255_are_two_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, LAYOUTS["one folder each"], (0, 255))
    table = load_card(made(tmp_path, capsys, "--out", str(tmp_path / "d.toml"))).table
    assert [each.values for each in table.classes] == [(0,), (255,)]
    assert table.ignored == ()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "sky\nroad\n\ntraffic light\npole\nVoid\n"),
        ("labels.txt", "0: sky\n1: road\n2: traffic light\n3: pole\n4 void"),
        ("label_colors.txt", "128 128 128 sky\n0 0 1 road\n1 2 3 traffic light\n9 9 9 pole\n0 0 0 Void"),
        ("class_dict.csv", "name,r,g,b\nsky,128,128,128\nroad,0,0,1\ntraffic light,1,2,3\npole,9,9,9\nvoid,0,0,0\n"),
    ],
)
def test_names_come_from_a_file(file: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, LAYOUTS["CamVid"], (0, 1, 2, 4))
    (tmp_path / file).write_text(text, encoding="utf-8")
    card = made(tmp_path, capsys)
    table = load_card(card).table
    assert table.names == ("sky", "road", "traffic light", "pole")
    assert table.ignored == (4,)
    assert "# was not seen" in card.read_text(encoding="utf-8")
    if "128" in text:
        assert table.classes[0].colour == (128, 128, 128)


def test_lists_make_the_splits_of_one_folder(tmp_path: Path) -> None:
    write(tmp_path, [(f"JPEGImages/{n}.jpg", f"SegmentationClass/{n}.png") for n in "abc"])
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in (("train", "a\nb\n"), ("val", "c\n")):
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names, encoding="utf-8")
    assert run(["data", "new", str(tmp_path), "--out", str(tmp_path / "voc.toml")]) == 0
    text = (tmp_path / "voc.toml").read_text(encoding="utf-8")
    for split in ("train", "val"):
        assert f'[splits.{split}]\nimages = "JPEGImages"\nlabels = "SegmentationClass"\nlist = "ImageSets/' in text


def test_what_cannot_be_done_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "new", str(tmp_path / "nothing")]) == 2
    assert run(["data", "new", str(tmp_path)]) == 1
    write(tmp_path, LAYOUTS["CamVid"])
    assert run(["data", "new", str(tmp_path), "--out", str(tmp_path / "d.toml")]) == 0
    assert run(["data", "new", str(tmp_path), "--out", str(tmp_path / "d.toml")]) == 2
    assert run(["data", "new", str(tmp_path), "--out", str(tmp_path / "d.toml"), "--force"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "is no folder" in said[0]
    assert "no images with label files of corresponding names; found: no pictures" in said[1]
    assert "exists; name another file with --out, or --force" in said[3]
