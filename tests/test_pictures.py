"""Which files are predicted and what their results are called: nothing is ever written over something else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luma_cli.errors import UsageError
from luma_cli.evaluate.predict import Picture, demand_free, find_pictures, legend_files


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(pictures: list[Picture]) -> list[str]:
    return [picture.name for picture in pictures]


def test_a_folder_gives_its_pictures_by_name(tmp_path: Path) -> None:
    photos = touch(tmp_path / "photos", "b.JPG", "a.png", "notes.txt", ".hidden.png", "below/c.png")
    assert names(find_pictures([str(photos)], tmp_path / "out")) == ["a", "b"]
    assert names(find_pictures([str(photos)], tmp_path / "out", recursive=True)) == ["a", "b", "below/c"]


def test_each_file_once_in_the_order_given(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    given_ = [str(tmp_path / "b.png"), str(tmp_path), str(tmp_path / "*.png")]
    assert names(find_pictures(given_, tmp_path / "out")) == ["b", "a"]


def test_suffixes_tell_two_of_one_name_apart(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png", "b.png")
    assert names(find_pictures([str(tmp_path)], tmp_path / "out")) == ["a.jpg", "a.png", "b"]


def test_numbers_tell_files_of_two_folders_apart(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.jpg", "two/a.jpg")
    found = find_pictures([str(tmp_path / "one"), str(tmp_path / "two")], tmp_path / "out")
    assert names(found) == ["a.jpg", "a.jpg-2"]


def test_a_picture_called_legend_keeps_off_the_legend(tmp_path: Path) -> None:
    touch(tmp_path, "legend.jpg")
    assert names(find_pictures([str(tmp_path)], tmp_path / "out")) == ["legend.jpg"]


FILE_NAMES = st.lists(
    st.builds(
        lambda folder, stem, suffix: f"{folder}{stem}{suffix}",
        st.sampled_from(["", "x/", "x/y/"]),
        st.sampled_from(["a", "A", "a_overlay", "a_raw", "a.jpg", "legend", "a.jpg-2"]),
        st.sampled_from([".jpg", ".png", ".PNG", ".tif"]),
    ),
    min_size=1,
    max_size=12,
    unique=True,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILE_NAMES)
def test_no_two_results_share_a_file(tmp_path_factory: pytest.TempPathFactory, files: list[str]) -> None:
    photos = touch(tmp_path_factory.mktemp("photos"), *files)
    out = photos.parent / "out"
    found = find_pictures([str(photos), *(str(photos / name) for name in files)], out, recursive=True)
    targets = [str(file).casefold() for picture in found for file in picture.files(out)]
    targets += [str(file).casefold() for file in legend_files(out)]
    assert len(found) == len(files)
    assert len(set(targets)) == len(targets)


def test_results_are_no_inputs_of_the_next_time(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/a.png", "out/a_overlay.png")
    assert names(find_pictures([str(tmp_path)], tmp_path / "out", recursive=True)) == ["a"]


class TestNothingFound:
    def test_an_empty_folder_says_what_was_looked_for(self, tmp_path: Path) -> None:
        touch(tmp_path, "below/a.png")
        with pytest.raises(UsageError, match=r"has no \.bmp, \.jpeg, .* file; --recursive looks into"):
            find_pictures([str(tmp_path)], tmp_path / "out")

    def test_a_pattern_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"file matches '.*/\*\.jpg' \(seen from "):
            find_pictures([str(tmp_path / "*.jpg")], tmp_path / "out")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"a\.jpg does not exist; expected an image file, a folder or a pattern"):
            find_pictures([str(tmp_path / "a.jpg")], tmp_path / "out")


class TestOverwriting:
    def test_an_input_is_never_overwritten(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png")
        found = find_pictures([str(tmp_path)], tmp_path)
        with pytest.raises(UsageError, match=r"a\.png is an input and would be overwritten"):
            demand_free(found, tmp_path, overwrite=True)

    def test_nor_through_a_link(self, tmp_path: Path) -> None:
        touch(tmp_path, "photos/a.png", "out/other.txt")
        os.link(tmp_path / "photos" / "a.png", tmp_path / "out" / "a.png")
        found = find_pictures([str(tmp_path / "photos")], tmp_path / "out")
        with pytest.raises(UsageError, match="is an input"):
            demand_free(found, tmp_path / "out", overwrite=True)

    def test_other_files_only_when_told_to(self, tmp_path: Path) -> None:
        touch(tmp_path, "photos/a.jpg", "out/a.png", "out/a_raw.png")
        found = find_pictures([str(tmp_path / "photos")], tmp_path / "out")
        with pytest.raises(UsageError, match=r"a\.png exists; .* --force to replace it"):
            demand_free(found, tmp_path / "out")
        demand_free(found, tmp_path / "out", overwrite=True)
        (tmp_path / "out" / "a.png").unlink()
        demand_free(found, tmp_path / "out", raw=False)
