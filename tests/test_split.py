"""Splits: pairs, order, names, identity, refusals with the file's name, pickling."""

from __future__ import annotations

import multiprocessing
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from dataset_files import OWN_CARD, ade_files, encoded, picture, write_folder, write_zip

from luma_cli.catalogue.datasets import IGNORED, DatasetCard, load_card
from luma_cli.data.source import find_root
from luma_cli.data.split import Samples, Split, find_pairs, open_split, shared_note
from luma_cli.errors import BadSample, DataError, UnknownName

ADE = "ADEChallengeData2016"
GOOD_LABELS = encoded(np.array([[0, 1], [2, 255]] * 3))
GOOD_IMAGE = encoded(picture(6, 2, 0), "JPEG")


@pytest.fixture(scope="module")
def ade() -> DatasetCard:
    return load_card("ade20k")


def own_split(folder: Path, files: dict[str, bytes], card: str = OWN_CARD) -> Split:
    write_folder(folder, {"own.toml": card.encode(), **files})
    loaded = load_card(folder / "own.toml")
    return open_split(loaded, find_root(loaded), "train")


def test_values_become_class_indices(tmp_path: Path) -> None:
    split = own_split(tmp_path, {"images/a.jpg": GOOD_IMAGE, "masks/a_mask.png": GOOD_LABELS})
    samples: Samples = split
    assert len(samples) == 1
    np.testing.assert_array_equal(samples.labels(0), [[0, 1], [1, IGNORED]] * 3)
    assert samples.image(0).shape == (6, 2, 3)
    assert samples.table.names == ("background", "cat")


def test_zero_of_ade20k_is_ignored(tmp_path: Path, ade: DatasetCard) -> None:
    name = f"{ADE}/{{}}/training/ADE_train_00000001.{{}}"
    values = np.array([[0, 1, 150]] * 2)
    write_folder(
        tmp_path,
        {
            name.format("images", "jpg"): encoded(picture(2, 3, 0), "JPEG"),
            name.format("annotations", "png"): encoded(values),
        },
    )
    split = open_split(ade, find_root(ade, tmp_path), "train")
    np.testing.assert_array_equal(split.labels(0), [[IGNORED, 0, 149]] * 2)
    assert split.name(0) == "ADE_train_00000001"


def test_order_is_by_number_then_path(tmp_path: Path) -> None:
    names = ["10", "9", "a2b", "sub/1", "b", "a"]
    files = {f"images/{name}.jpg": GOOD_IMAGE for name in names} | {
        f"masks/{name}_mask.png": GOOD_LABELS for name in names
    }
    split = own_split(tmp_path, files)
    assert [split.name(index) for index in range(len(split))] == ["a", "b", "1", "a2b", "9", "10"]


def test_names_are_short_where_that_is_enough(tmp_path: Path) -> None:
    files = {f"images/{name}.jpg": GOOD_IMAGE for name in ("x/1", "y/1", "z/2")}
    files |= {f"masks/{name}_mask.png": GOOD_LABELS for name in ("x/1", "y/1", "z/2")}
    split = own_split(tmp_path, files)
    assert [split.name(index) for index in range(3)] == ["x/1", "y/1", "z/2"]


def test_folders_below_count_only_when_recursive(tmp_path: Path) -> None:
    files = {"images/a.jpg": GOOD_IMAGE, "images/sub/b.jpg": GOOD_IMAGE, "masks/a_mask.png": GOOD_LABELS}
    split = own_split(tmp_path, files, OWN_CARD.replace("recursive = true", ""))
    assert [pair.image for pair in split.pairs] == ["a.jpg"]


def test_images_and_labels_may_share_a_folder(tmp_path: Path) -> None:
    card = OWN_CARD.replace('"images"', '"."').replace('"masks"', '"."')
    split = own_split(tmp_path, {"a.png": encoded(picture(6, 2, 0)), "a_mask.png": GOOD_LABELS, "note.txt": b""}, card)
    assert [(pair.name, pair.image, pair.labels) for pair in split.pairs] == [("a", "a.png", "a_mask.png")]


def test_missing_labels_are_an_error_and_listed(tmp_path: Path) -> None:
    files = {f"images/{name}.jpg": GOOD_IMAGE for name in "abc"} | {
        "masks/b_mask.png": GOOD_LABELS,
        "masks/d_mask.png": b"",
    }
    with pytest.raises(DataError, match=r"2 of 3 images have no label file: .*images/a\.jpg needs .*masks/a_mask\.png"):
        own_split(tmp_path, files)
    card = load_card(tmp_path / "own.toml")
    pairing = find_pairs(card, find_root(card), "train")
    assert [pair.image for pair in pairing.unlabelled] == ["a.jpg", "c.jpg"]
    assert pairing.imageless == ("d_mask.png",)
    assert [pair.name for pair in pairing.pairs] == ["b"]


def test_a_folder_without_images_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image that ends in \.jpg or \.png; there is 2 \.JPG, 1 \.txt"):
        own_split(tmp_path, {"images/a.JPG": b"", "images/b.JPG": b"", "images/c.txt": b"", "masks/a_mask.png": b""})
    (tmp_path / "empty" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match="there is no file"):
        own_split(tmp_path / "empty", {"masks/x": b""})


def test_two_images_for_one_label(tmp_path: Path) -> None:
    files = {"images/a.jpg": GOOD_IMAGE, "images/a.png": GOOD_IMAGE, "masks/a_mask.png": GOOD_LABELS}
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png have the same label file a_mask\.png"):
        own_split(tmp_path, files)


LISTED = OWN_CARD.replace("recursive = true", 'recursive = true\nlist = "lists/train.txt"')


def listed(names: str) -> dict[str, bytes]:
    files = {"lists/train.txt": names.encode("utf-8-sig")}
    for name in ("a", "sub/b", "c"):
        files |= {f"images/{name}.jpg": GOOD_IMAGE, f"masks/{name}_mask.png": GOOD_LABELS}
    return files


def test_a_list_names_the_images_of_a_split(tmp_path: Path) -> None:
    files = listed("sub/b\r\na.jpg\n\n") | {"images/d.jpg": GOOD_IMAGE}  # d has no labels and is in no list
    split = own_split(tmp_path, files, LISTED)
    assert [pair.image for pair in split.pairs] == ["a.jpg", "sub/b.jpg"]
    card = load_card(tmp_path / "own.toml")
    assert find_pairs(card, find_root(card), "train").imageless == ()
    zipped = tmp_path / "zipped"
    write_zip(zipped / "own.zip", files)
    assert own_split(zipped, {}, 'archives = ["own.zip"]\n' + LISTED).fingerprint == split.fingerprint


def test_lines_that_name_no_image(tmp_path: Path) -> None:
    said = r"train\.txt: 1 of 2 lines name no image, the first 'b' \(at line 2\); expected names in images/ such as 'a'"
    with pytest.raises(DataError, match=said):
        own_split(tmp_path, listed("a\nb\n"), LISTED)
    (tmp_path / "lists" / "train.txt").unlink()
    with pytest.raises(DataError, match=r"no file lists/train\.txt, which lists its train images"):
        own_split(tmp_path, {}, LISTED)


@pytest.mark.parametrize(("images", "labels"), [("img-", "00"), ("", "gt_"), ("img-", "")])
@pytest.mark.parametrize("folder", ["masks", "images"])
def test_prefixes_pair_images_and_labels(folder: str, images: str, labels: str, tmp_path: Path) -> None:
    card = f'image_prefix = "{images}"\nlabel_prefix = "{labels}"\n' + OWN_CARD.replace("_mask.png", ".png")
    png = encoded(picture(6, 2, 0))
    files = {f"images/sub/{images}1.png": png, f"{folder}/sub/{labels}1.png": GOOD_LABELS, "images/x/other.txt": b""}
    split = own_split(tmp_path, files, card.replace('labels = "masks"', f'labels = "{folder}"'))
    assert [(pair.name, pair.labels) for pair in split.pairs] == [("1", f"sub/{labels}1.png")]
    np.testing.assert_array_equal(split.image(0), picture(6, 2, 0))


def test_pairing_in_one_folder_is_linear(tmp_path: Path) -> None:
    card = OWN_CARD.replace('"images"', '"."').replace('"masks"', '"."').replace("recursive = true", "")
    write_zip(tmp_path / "own.zip", {f"{n}{end}": b"1" for n in range(5_000) for end in (".jpg", "_mask.png")}, 0)
    (tmp_path / "own.toml").write_text('archives = ["own.zip"]\n' + card, encoding="utf-8")
    loaded = load_card(tmp_path / "own.toml")
    root, start = find_root(loaded), time.process_time()
    assert len(find_pairs(loaded, root, "train").pairs) == 5_000
    assert time.process_time() - start < 2  # a minute where each image looks through all labels


def test_images_of_train_and_val_are_noted(tmp_path: Path) -> None:
    card = OWN_CARD + '[splits.val]\nimages = "{}"\nlabels = "masks"\nrecursive = true\n'
    files = {f"{place}.jpg": encoded(picture(6, 2, seed), "BMP") for seed, place in enumerate(("images/a", "images/b"))}
    files |= {f"masks/{name}_mask.png": GOOD_LABELS for name in "ab"}
    files |= {"other/a.jpg": files["images/b.jpg"], "other/b.jpg": files["images/b.jpg"]}  # of one size, a differs
    for folder, said in (("images", "2 images are in train and in val, e.g. a"), ("other", "1 image is in")):
        train = own_split(tmp_path, files, card.replace("{}", folder))
        val = open_split(train.card, find_root(train.card), "val")
        assert shared_note(train, val).startswith(said)
    alone = own_split(tmp_path / "x", {"images/z.jpg": GOOD_IMAGE, "masks/z_mask.png": GOOD_LABELS})
    assert shared_note(train, alone) == ""


def test_unknown_split(tmp_path: Path, ade: DatasetCard) -> None:
    write_folder(tmp_path, ade_files(ade.table))
    root = find_root(ade, tmp_path)
    with pytest.raises(UnknownName, match="ade20k has no split 'vla'; did you mean 'val'"):
        open_split(ade, root, "vla")
    write_folder(tmp_path, {"own.toml": OWN_CARD.encode()})
    own = load_card(tmp_path / "own.toml")
    with pytest.raises(UnknownName, match="own has no split 'val'; expected train"):
        open_split(own, root, "val")


@pytest.mark.parametrize(
    ("image", "labels", "said"),
    [
        (GOOD_IMAGE, encoded(np.array([[0, 1], [7, 9]] * 3)), r"a_mask\.png: label values 7, 9 in no class"),
        (GOOD_IMAGE, encoded(np.full((6, 2), 7)), r"a_mask\.png: label value 7 in no class"),
        (GOOD_IMAGE, encoded(np.zeros((5, 2))), r"a_mask\.png: 2 x 5 pixels, but its image .*a\.jpg has 2 x 6$"),
        (GOOD_IMAGE, encoded(np.zeros((2, 6))), r"2 x 6; the image may have been rotated by its EXIF tag"),
        (GOOD_IMAGE, encoded(picture(6, 2, 0)), r"a_mask\.png: a label file of colour mode RGB"),
        (GOOD_IMAGE, GOOD_LABELS[:-30], r"a_mask\.png: damaged"),
        (b"GIF89a", GOOD_LABELS, r"images/a\.jpg: a GIF file, expected JPEG, PNG, WEBP, BMP or TIFF; convert it"),
        (GOOD_IMAGE[:60], GOOD_LABELS, r"images/a\.jpg: "),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_bad_files_are_named(tmp_path: Path, image: bytes, labels: bytes, said: str, zipped: bool) -> None:
    files = {"images/a.jpg": image, "masks/a_mask.png": labels}
    if zipped:
        write_zip(tmp_path / "own.zip", files)
        split = own_split(tmp_path, {}, "archives = ['own.zip']\n" + OWN_CARD)
    else:
        split = own_split(tmp_path, files)
    with pytest.raises(BadSample, match=said) as error:
        split.labels(0)
    assert str(tmp_path) in str(error.value)


def test_identity_is_the_name_alone_for_the_official_number(tmp_path: Path, ade: DatasetCard) -> None:
    files = {}
    for index in range(2000):
        files[f"{ADE}/images/validation/ADE_val_{index:08d}.jpg"] = b"1"
        files[f"{ADE}/annotations/validation/ADE_val_{index:08d}.png"] = b"2"
    write_zip(tmp_path / f"{ADE}.zip", files)
    split = open_split(ade, find_root(ade, tmp_path), "val")
    assert split.is_official
    assert split.identity == "ade20k"
    files.popitem()
    files.popitem()
    write_zip(tmp_path / f"{ADE}.zip", files)
    fewer = open_split(ade, find_root(ade, tmp_path), "val")
    assert not fewer.is_official
    assert fewer.identity == f"ade20k#{fewer.fingerprint[:8]}"


def test_own_datasets_are_never_official(tmp_path: Path) -> None:
    card = OWN_CARD.replace("recursive", "count = 1\nrecursive")
    split = own_split(tmp_path, {"images/a.jpg": GOOD_IMAGE, "masks/a_mask.png": GOOD_LABELS}, card)
    assert not split.is_official
    assert split.identity == f"own#{split.fingerprint[:8]}"


@pytest.mark.parametrize(
    "change",
    [
        {"images/b.jpg": GOOD_IMAGE, "masks/b_mask.png": GOOD_LABELS},
        {"images/a.jpg": GOOD_IMAGE + b"\0"},
        {"masks/a_mask.png": GOOD_LABELS + b"\0"},
    ],
)
def test_fingerprint_depends_on_names_and_both_sizes(tmp_path: Path, change: dict[str, bytes]) -> None:
    files = {"images/a.jpg": GOOD_IMAGE, "masks/a_mask.png": GOOD_LABELS, "masks/unrelated.png": b"1"}
    before = own_split(tmp_path / "one", files).fingerprint
    assert own_split(tmp_path / "two", {**files, "masks/unrelated.png": b"22"}).fingerprint == before
    assert own_split(tmp_path / "three", {**files, **change}).fingerprint != before
    assert len(before) == 64


def send_labels(split: Split, answers: object) -> None:
    answers.put([split.labels(index).tobytes() for index in range(len(split))])  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_read_the_same(tmp_path: Path, ade: DatasetCard, method: str) -> None:
    write_zip(tmp_path / f"{ADE}.zip", ade_files(ade.table))
    split = open_split(ade, find_root(ade, tmp_path), "train")
    expected = [split.labels(index).tobytes() for index in range(len(split))]
    copy = pickle.loads(pickle.dumps(split))
    assert [copy.labels(index).tobytes() for index in range(len(copy))] == expected
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=send_labels, args=(split, answers))
    child.start()
    assert answers.get(timeout=60) == expected
    child.join()
