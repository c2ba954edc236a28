"""Dataset cards: the shipped ones against published facts, and every mistake in one's own."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import fields
from pathlib import Path

import pytest
from dataset_files import OWN_CARD, write_folder

from luma_cli import files
from luma_cli.catalogue.datasets import DatasetCard, SplitCard, card_names, drawn_colour, load_card, read_card
from luma_cli.data.source import find_root
from luma_cli.data.split import find_pairs
from luma_cli.errors import BadCard, UnknownName


def card_file(folder: Path, text: str, name: str = "own.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def write_pairs(folder: Path, names: list[str]) -> None:
    for kind, end in (("images", ".jpg"), ("masks", "_mask.png")):
        write_folder(folder, {f"{kind}/{name}{end}": b"1" for name in names})


def test_shipped_cards_are_the_two_datasets() -> None:
    assert card_names() == ("ade20k", "cityscapes")
    for name in card_names():
        card = load_card(name)
        assert card.name == name
        assert card.shipped
        assert card.title
        assert card.licence
        assert card.sources
        assert set(card.splits) == {"train", "val"}


def test_ade20k_is_sceneparse150() -> None:
    """objectInfo150.txt and color150.mat of https://github.com/CSAILVision/sceneparsing."""
    card = load_card("ade20k")
    classes = card.table.classes
    assert [each.values for each in classes] == [(value,) for value in range(1, 151)]
    assert card.table.ignored == (0,)
    assert (classes[0].name, classes[0].colour) == ("wall", (120, 120, 120))
    assert (classes[12].name, classes[12].colour) == ("person", (150, 5, 61))
    assert (classes[149].name, classes[149].colour) == ("flag", (92, 0, 255))
    # Weighted sums of every channel, of the published file, so that no digit of it can change unseen.
    assert [sum(each.colour[channel] * (index + 1) for index, each in enumerate(classes)) for channel in range(3)] == [
        1268542,
        1551769,
        1649040,
    ]
    assert (card.splits["train"].count, card.splits["val"].count) == (20210, 2000)
    assert card.archives == ("ADEChallengeData2016.zip",)


def test_cityscapes_maps_ids_to_train_ids() -> None:
    """Section 5 of the recipe's data: id -> trainId, https://github.com/mcordts/cityscapesScripts."""
    train_ids = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    card = load_card("cityscapes")
    assert tuple(each.values for each in card.table.classes) == tuple((value,) for value in train_ids)
    assert sorted((*train_ids, *card.table.ignored)) == [*range(34), 255]
    assert card.table.names[:3] == ("road", "sidewalk", "building")
    assert card.table.names[18] == "bicycle"
    assert (card.splits["train"].count, card.splits["val"].count) == (2975, 500)


def test_own_card_needs_little(tmp_path: Path) -> None:
    card = load_card(card_file(tmp_path, OWN_CARD))
    assert (card.name, card.title, card.shipped) == ("own", "own", False)
    assert card.table.names == ("background", "cat")
    assert [each.values for each in card.table.classes] == [(0,), (1, 2)]
    assert card.table.classes[0].colour == drawn_colour(0)
    assert card.table.classes[1].colour == (255, 0, 0)
    assert card.table.ignored == (255,)
    assert card.splits["train"].recursive
    assert card.splits["train"].count == 0
    assert load_card(str(tmp_path / "own.toml")) == card


def test_paths_inside_are_normalised(tmp_path: Path) -> None:
    text = OWN_CARD.replace('"images"', '"./images/"').replace('"masks"', '"."')
    split = load_card(card_file(tmp_path, text)).splits["train"]
    assert (split.images, split.labels) == ("images", "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("label_suffix", "label_sufix", "did you mean 'label_suffix'"),
        ("recursive = true", "recursiv = true", "did you mean 'recursive'"),
        ("[splits.train]", "[splits.tarin]", "did you mean 'train'"),
        ("colour =", "color =", "did you mean 'colour'"),
        ('label_suffix = "_mask.png"', "", "label_suffix is missing"),
        ('label_suffix = "_mask.png"', 'label_suffix = ""', "suffix is empty"),
        ('[".jpg", ".png"]', "[]", "suffix is empty"),
        ('[".jpg", ".png"]', '".jpg"', "a list of texts"),
        ('masks"', '../../etc"', "without .."),
        ('"masks"', '"/etc"', "inside the dataset"),
        ('"masks"', '"a\\\\..\\\\b"', "inside the dataset"),
        ("images =", "count = -1\nimages =", "count is -1"),
        ("images =", "count = true\nimages =", "count is True"),
        ("[1, 2]", "[1, 300]", "from 0 to 255"),
        ("[1, 2]", "[0, 1]", "label value 0 is given two meanings"),
        ("[1, 2]", "[]", "from 0 to 255"),
        ("[255, 0, 0]", "[255, 0]", "[red, green, blue]"),
        ('"cat"', '"background"', "two classes are called 'background'"),
        ('"cat"', '" "', "the name is empty"),
        ("values =", "value = 3, values =", "expected one of them"),
        ('"background"', "7", "expected a table"),
        ("[splits.train]", "[splits]\n[splits_train]", "splits_train"),
        ("image_suffixes", 'name = "a b"\nimage_suffixes', "letters, digits"),
        ("image_suffixes", 'archives = ["../x.zip"]\nimage_suffixes', "without folders"),
        ("image_suffixes", 'archives = ["x.tar"]\nimage_suffixes', "name of a .zip"),
        ("image_suffixes", 'folder = "../x"\nimage_suffixes', "folder is '../x'"),
        ("image_suffixes", 'ignored = "void"\nimage_suffixes', "ignored: value 'void'"),
        ("image_suffixes", "ignored = [0]\nimage_suffixes", "label value 0 is given two meanings"),
        ("image_suffixes = ", "image_suffixes = = ", "at line 2"),
        (
            "image_suffixes",
            "ignored = 1\nimage_suffixes",
            "two meanings, 'cat' and `ignored`, expected one; with ignored = []",
        ),
        ("image_suffixes", "ignored = [[1, 2, 3]]\nimage_suffixes", "not every class has one; add colour ="),
        ("image_suffixes", "ignored = [[1, 2]]\nimage_suffixes", "[red, green, blue]"),
        ("image_suffixes", "val_share = 1.5\nimage_suffixes", "val_share is 1.5, expected a share such as 0.1"),
        ("image_suffixes", 'label_prefix = "a/"\nimage_suffixes', "a prefix has a slash"),
        ("recursive = true", 'list = "../train.txt"', "list is '../train.txt', expected a path inside"),
        ("recursive = true", f"count = {10**4000}", "expected a number of images"),
        ("recursive = true", f"count = {'9' * 4400}", "a number of thousands of digits (at line 9)"),
        ('"background"', "[" * 3000, "nested too deeply"),
        ('"background"', "{" + "a." * 5000 + "b = 1}", "a key of more than 100 parts"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in OWN_CARD
    path = card_file(tmp_path, OWN_CARD.replace(old, new))
    with pytest.raises(BadCard) as error:
        load_card(path)
    assert str(path) in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """Read in one place: dataset cards, backbone cards, recipes and luma.toml."""
    marked = tmp_path / "marked.toml"
    marked.write_bytes(b"\xef\xbb\xbf" + OWN_CARD.encode())
    assert load_card(marked).table.names == ("background", "cat")
    (tmp_path / "latin.toml").write_bytes(b"title = 1\n\nname = '\xe9'")
    (tmp_path / "link.toml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (1 << 21))
    for name, said in (
        ("latin", "not UTF-8 (at line 3)"),
        ("link", "no such file, but a link to one"),
        ("folder", "no file"),
        ("pipe", "no file"),
        ("large", "2,097,152 bytes, expected at most 1,048,576"),
        ("x" * 5000, "File name too long"),
    ):
        with pytest.raises(BadCard) as error:
            files.read_toml(tmp_path / f"{name}.toml")
        assert said in str(error.value)
        assert f"{name}.toml" in str(error.value)


def test_255_is_ignored_unless_it_is_a_class(tmp_path: Path) -> None:
    text = OWN_CARD.replace("values = [1, 2]", "value = 255")
    assert load_card(card_file(tmp_path, text)).table.ignored == ()
    with pytest.raises(
        BadCard, match=r"255 is given two meanings, 'cat' and `ignored`, expected one; with ignored = \[\]"
    ):
        load_card(card_file(tmp_path, "ignored = 255\n" + text))


def test_a_share_of_train_is_val(tmp_path: Path) -> None:
    card = load_card(card_file(tmp_path, "val_share = 0.25\n" + OWN_CARD))
    names = [f"{number:03}" for number in range(200)]
    write_folder(
        tmp_path, {f"images/{name}.jpg": b"1" for name in names} | {f"masks/{name}_mask.png": b"1" for name in names}
    )
    root = find_root(card)
    parts = {split: {pair.name for pair in find_pairs(card, root, split).pairs} for split in ("train", "val")}
    assert parts["train"] | parts["val"] == set(names)
    assert not parts["train"] & parts["val"]
    assert 30 < len(parts["val"]) < 70
    write_pairs(tmp_path, ["new"])
    after = {pair.name for pair in find_pairs(card, root, "val").pairs}
    assert after - {"new"} == parts["val"]
    for text, said in (("val_share = 1.0\n", "a share such as"), ("val_share = 0.1\n", "no [splits.val]")):
        splits = OWN_CARD + '[splits.val]\nimages = "v"\nlabels = "w"\n'
        with pytest.raises(BadCard) as error:
            load_card(card_file(tmp_path, text + splits))
        assert said in str(error.value)


def test_one_image_of_two_is_val(tmp_path: Path) -> None:
    card = load_card(card_file(tmp_path, "val_share = 0.001\n" + OWN_CARD))
    write_pairs(tmp_path, ["a", "b"])
    assert [len(find_pairs(card, find_root(card), split).pairs) for split in ("train", "val")] == [1, 1]


def test_classes_may_not_be_missing(tmp_path: Path) -> None:
    text = "\n".join(line for line in OWN_CARD.splitlines() if not line.startswith("classes"))
    with pytest.raises(BadCard, match=r"classes is missing, expected classes = \["):
        load_card(card_file(tmp_path, text))


def test_images_and_labels_that_cannot_be_told_apart(tmp_path: Path) -> None:
    text = OWN_CARD.replace('"_mask.png"', '".png"').replace('"masks"', '"images"')
    with pytest.raises(BadCard, match="share the folder 'images' and the suffix"):
        load_card(card_file(tmp_path, text))


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'cityscapes'"):
        load_card("citiscapes")
    with pytest.raises(UnknownName, match="expected ade20k or cityscapes; a dataset of your own"):
        load_card("coco")
    with pytest.raises(BadCard, match="no such file"):
        load_card("missing.toml")
    with pytest.raises(BadCard, match="cannot be read"):
        load_card(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(BadCard, match="cannot be read"):
        load_card(tmp_path / "latin.toml")


def test_ignored_may_be_a_value_values_or_names(tmp_path: Path) -> None:
    for text, expected in (("9", (9,)), ("[9, 8]", (9, 8)), ("{ void = 9 }", (9,)), ("[]", ())):
        path = card_file(tmp_path, f"ignored = {text}\n" + OWN_CARD)
        assert read_card(path).table.ignored == expected


def test_drawn_colours_differ() -> None:
    colours = [drawn_colour(index) for index in range(254)]
    assert len(set(colours)) == 254
    assert all(0 <= part <= 255 for colour in colours for part in colour)
    apart = [max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in itertools.pairwise(colours)]
    assert min(apart) > 60


def test_the_worked_example_of_the_docs(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "use" / "data.md").read_text(encoding="utf-8")
    example = next(text for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "image_suffixes" in text)
    card = read_card(card_file(tmp_path, example, "wheat.toml"))
    assert card.table.names == ("soil", "wheat", "weed")
    assert [each.values for each in card.table.classes] == [(0,), (1,), (2, 3, 7)]
    assert card.table.ignored == (254, 255)
    assert card.splits["val"].count == 120
    assert card.splits["train"].recursive
    files = {f"{folder}/2025/north/a17{end}": b"1" for folder, end in (("photos", ".jpg"), ("labels", "_labels.png"))}
    write_folder(tmp_path, files)
    pairing = find_pairs(card, find_root(card), "train")
    assert [(pair.image, pair.labels) for pair in pairing.pairs] == [("north/a17.jpg", "north/a17_labels.png")]
    keys = set(
        re.findall(r"`([a-z_]+)`", "\n".join(line.split("|")[1] for line in page.splitlines() if line[:1] == "|"))
    )
    known = {field.name for kind in (DatasetCard, SplitCard) for field in fields(kind)} - {"table", "file", "shipped"}
    assert known | {"classes", "ignored"} <= keys
