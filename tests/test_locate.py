"""Where datasets are looked for: every layout, every place in its order, and what is said when nothing is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dataset_files import OWN_CARD, ade_files, cityscapes_files, write_folder, write_zip

from luma_cli.catalogue.datasets import DatasetCard, load_card
from luma_cli.data.source import Archive, Folder, find_root
from luma_cli.data.split import Split, open_split
from luma_cli.errors import BadCard, DataError

ADE = "ADEChallengeData2016"


@pytest.fixture(scope="module")
def ade() -> DatasetCard:
    return load_card("ade20k")


@pytest.fixture(scope="module")
def cityscapes() -> DatasetCard:
    return load_card("cityscapes")


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty, and no setting."""
    monkeypatch.delenv("LUMA_DATA", raising=False)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def the_same(splits: list[Split]) -> bool:
    first = splits[0]
    return all(
        split.fingerprint == first.fingerprint
        and split.pairs == first.pairs
        and all((split.image(i) == first.image(i)).all() for i in range(len(first)))
        and all((split.labels(i) == first.labels(i)).all() for i in range(len(first)))
        for split in splits
    )


def test_every_layout_of_ade20k_reads_the_same(tmp_path: Path, ade: DatasetCard) -> None:
    files = ade_files(ade.table)
    inner = {path.removeprefix(f"{ADE}/"): data for path, data in files.items()}
    write_folder(tmp_path / "extracted", files)
    write_folder(tmp_path / "renamed", inner)
    write_folder(tmp_path / "many" / "ade20k", inner)
    write_folder(tmp_path / "many zips" / "other", {"x": b""})
    write_zip(tmp_path / "many zips" / "ade20k" / f"{ADE}.zip", files)
    write_zip(tmp_path / "zips" / f"{ADE}.zip", files)
    write_zip(tmp_path / "zips without top" / f"{ADE}.zip", inner)
    write_zip(tmp_path / "mine.zip", files)
    places = [
        "extracted",
        f"extracted/{ADE}",
        "renamed",
        "many",
        "many/ade20k",
        "many zips",
        "zips",
        "zips without top",
    ]
    places += [f"zips/{ADE}.zip", "mine.zip"]
    for name in ("train", "val"):
        splits = [open_split(ade, find_root(ade, tmp_path / place), name) for place in places]
        assert [len(split) for split in splits] == [5 if name == "train" else 2] * len(places)
        assert the_same(splits)


def test_every_layout_of_cityscapes_reads_the_same(tmp_path: Path, cityscapes: DatasetCard) -> None:
    files = cityscapes_files(cityscapes.table)
    images = {path: data for path, data in files.items() if path.startswith("leftImg8bit")}
    labels = {path: data for path, data in files.items() if path.startswith("gtFine")}
    write_folder(tmp_path / "extracted", files)
    for place, mixed in (("zips", False), ("half", True)):
        write_zip(tmp_path / place / "leftImg8bit_trainvaltest.zip", images)
        if mixed:
            write_folder(tmp_path / place, labels)
        else:
            write_zip(tmp_path / place / "gtFine_trainvaltest.zip", labels)
    places = ("extracted", "zips", "zips/gtFine_trainvaltest.zip", "half")
    splits = [open_split(cityscapes, find_root(cityscapes, tmp_path / place), "train") for place in places]
    assert the_same(splits)
    assert [splits[0].name(index) for index in range(3)] == [
        "aachen_000000_000019",
        "aachen_000001_000019",
        "bochum_000000_000019",
    ]


def test_archives_are_read_before_folders(tmp_path: Path, ade: DatasetCard) -> None:
    write_folder(tmp_path, ade_files(ade.table))
    write_zip(tmp_path / f"{ADE}.zip", ade_files(ade.table))
    assert [type(source) for source in find_root(ade, tmp_path).sources] == [Archive, Folder]


def test_order_of_places(tmp_path: Path, ade: DatasetCard, away: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--root, $LUMA_DATA, luma.toml here (the dataset's own key first), luma.toml of the user."""
    config = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    for name in ("given", "variable", "own", "root", "user"):
        write_folder(tmp_path / name, ade_files(ade.table, 1, 1))
    monkeypatch.setenv("LUMA_DATA", str(tmp_path / "variable"))
    (away / "luma.toml").write_text(f'[data]\nroot = "{tmp_path}/root"\nade20k = "../own"\n')
    write_folder(config / "luma", {"luma.toml": f'[data]\nroot = "{tmp_path}/user"\n'.encode()})
    assert find_root(ade, tmp_path / "given").place == tmp_path / "given"
    for name in ("variable", "own", "root", "user"):
        place = find_root(ade).place
        assert place.resolve() == tmp_path / name
        shutil.rmtree(tmp_path / name)
    with pytest.raises(DataError) as error:
        find_root(ade)
    for name in ("variable ($LUMA_DATA), which does not exist", "own", "root", "user"):
        assert str(tmp_path / name) in str(error.value).replace("here/../", "")


def test_only_the_given_place_is_searched(tmp_path: Path, ade: DatasetCard, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "variable", ade_files(ade.table, 1, 1))
    monkeypatch.setenv("LUMA_DATA", str(tmp_path / "variable"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        find_root(ade, tmp_path / "empty")
    said = str(error.value)
    assert f"in {tmp_path / 'empty'} (--root)" in said
    for wanted in (
        f"{ADE}.zip",
        f"{ADE}/images/training/",
        f"{ADE}/annotations/validation/",
        "http://data.csail.mit.edu",
    ):
        assert wanted in said
    assert "variable" not in said
    assert "\n" not in said


def test_nothing_is_set(ade: DatasetCard, away: Path) -> None:
    with pytest.raises(DataError, match=r"--root is not given, \$LUMA_DATA is not set.*luma\.toml.*give --root DIR"):
        find_root(ade)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[data]\nade20 = 'x'\n", "did you mean 'ade20k'"),
        ("[dta]\n", "did you mean 'data'"),
        ("[data]\nroot = 3\n", "root is 3, expected text"),
        ("data = 'x'\n", "data is 'x', expected a table"),
        ("[data\n", "luma.toml"),
    ],
)
def test_mistakes_in_the_settings(away: Path, ade: DatasetCard, text: str, said: str) -> None:
    (away / "luma.toml").write_text(text)
    with pytest.raises(BadCard, match="luma.toml") as error:
        find_root(ade)
    assert said in str(error.value)


def test_settings_start_at_home_and_their_own_folder(
    tmp_path: Path, ade: DatasetCard, away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "data", ade_files(ade.table, 1, 1))
    (away / "luma.toml").write_text("[data]\nroot = '~/data'\n")
    assert find_root(ade).place == tmp_path / "data"
    assert find_root(ade, "~/data").place == tmp_path / "data"


def test_own_dataset_lies_beside_its_card(tmp_path: Path, away: Path) -> None:
    write_folder(tmp_path / "mine", {"own.toml": OWN_CARD.encode(), "images/a.jpg": b"", "masks/a_mask.png": b""})
    card = load_card(tmp_path / "mine" / "own.toml")
    assert find_root(card).place == tmp_path / "mine"
    (tmp_path / "mine" / "own.toml").rename(tmp_path / "own.toml")
    with pytest.raises(DataError, match="beside the card"):
        find_root(load_card(tmp_path / "own.toml"))


def test_cityscapes_without_labels(tmp_path: Path, cityscapes: DatasetCard) -> None:
    files = cityscapes_files(cityscapes.table)
    images = {path: data for path, data in files.items() if path.startswith("leftImg8bit")}
    write_zip(tmp_path / "leftImg8bit_trainvaltest.zip", images)
    with pytest.raises(DataError, match=r"the folder gtFine/train/, .* is missing in .*gtFine_trainvaltest\.zip"):
        open_split(cityscapes, find_root(cityscapes, tmp_path), "train")


def test_half_an_archive(tmp_path: Path, ade: DatasetCard) -> None:
    file = write_zip(tmp_path / f"{ADE}.zip", ade_files(ade.table))
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"ADEChallengeData2016\.zip: [\d,]+ bytes and no whole zip archive"):
        open_split(ade, find_root(ade, tmp_path), "val")
