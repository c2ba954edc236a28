"""Folders and archives give the same files; an archive is opened once per process and never trusted."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
from dataset_files import write_folder, write_zip

from luma_cli.data import source
from luma_cli.data.source import Archive, Folder
from luma_cli.errors import BadSample, DataError

FILES = {
    "top/images/b.jpg": b"b" * 10,
    "top/images/a.jpg": b"a" * 7,
    "top/images/deep/c.jpg": b"c",
    "top/images/.hidden.jpg": b"?",
    "top/images/.cache/d.jpg": b"?",
    "top/labels/a.png": b"",
    "__MACOSX/top/images/._a.jpg": b"?",
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_folder_and_archive_agree(tmp_path: Path, compression: int) -> None:
    folder = Folder(write_folder(tmp_path / "files", FILES) / "top")
    archive = Archive(write_zip(tmp_path / "a.zip", FILES, compression), "top")
    bare = {name.removeprefix("top/"): data for name, data in FILES.items() if name.startswith("top/")}
    flat = Archive(write_zip(tmp_path / "flat.zip", bare, compression), "top")
    for one in (folder, archive, flat):
        assert one.sizes("images", False) == {"a.jpg": 7, "b.jpg": 10}
        assert one.sizes("images", True) == {"a.jpg": 7, "b.jpg": 10, "deep/c.jpg": 1}
        assert one.sizes("labels", False) == {"a.png": 0}
        assert one.sizes("label", False) is None
        assert one.sizes("", True) == {"images/a.jpg": 7, "images/b.jpg": 10, "images/deep/c.jpg": 1, "labels/a.png": 0}
        assert one.read("images/deep/c.jpg") == b"c"
        with one.open("images/b.jpg") as file:
            assert file.read(3) == b"bbb"
        assert one.where("images/a.jpg").endswith("images/a.jpg")
        with pytest.raises(BadSample, match="images/none.jpg: cannot be read"):
            one.read("images/none.jpg")


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "top/../../evil.png", "c:/evil.png", "top\\evil.png"])
def test_a_member_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    file = write_zip(tmp_path / "a.zip", {**FILES, name: b"x"})
    with pytest.raises(DataError, match="leads out of the archive"):
        Archive(file, "top").sizes("images", True)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", {"images/a.jpg": b"x"})
    data = bytearray(file.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match="is encrypted"):
        Archive(file).sizes("images", True)


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_half_an_archive_says_so(tmp_path: Path, kept: float) -> None:
    file = write_zip(tmp_path / "a.zip", FILES)
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"a\.zip: [\d,]+ bytes and no whole zip archive .* download it again"):
        Archive(file, "top").sizes("images", True)


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", {"images/caf\xe9.jpg": b"x"})
    file.write_bytes(file.read_bytes().replace("\xe9".encode(), b"\xff\xff"))
    with pytest.raises(DataError, match=r"a\.zip: the name b'images/caf.*' in it is not UTF-8, as it says"):
        Archive(file).sizes("images", True)


def test_damage_inside_names_the_member(tmp_path: Path) -> None:
    file = write_zip(
        tmp_path / "a.zip", {"images/a.jpg": b"content of a", "images/b.jpg": b"other"}, zipfile.ZIP_STORED
    )
    file.write_bytes(file.read_bytes().replace(b"content", b"CONTENT"))
    archive = Archive(file)
    assert archive.read("images/b.jpg") == b"other"
    with pytest.raises(BadSample, match=r"a\.zip: images/a\.jpg: cannot be read: Bad CRC-32"):
        archive.read("images/a.jpg")


def test_a_member_that_claims_to_be_huge_is_not_read(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.zip", {"images/a.jpg": b"x"})
    data = bytearray(file.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 3_000_000_000)  # the size before compression
    file.write_bytes(data)
    with pytest.raises(BadSample, match="3,000,000,000 bytes, expected at most"):
        Archive(file).read("images/a.jpg")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(source.MAX_FILE_BYTES + 1)
    with pytest.raises(BadSample, match="expected at most"):
        Folder(tmp_path).read("a.jpg")


def test_pickling_drops_the_open_file(tmp_path: Path) -> None:
    archive = Archive(write_zip(tmp_path / "a.zip", FILES), "top")
    before = len(pickle.dumps(archive))
    assert archive.read("images/a.jpg") == b"a" * 7
    data = pickle.dumps(archive)
    assert len(data) == before < 500
    copy = pickle.loads(data)
    archive.close()
    assert copy.read("images/a.jpg") == b"a" * 7
    assert archive.read("images/b.jpg") == b"b" * 10  # closed, so it is opened again


def read_often(archive: Archive, expected: bytes, answers: object) -> None:
    same = all(archive.read("big.bin") == expected for _ in range(40))
    answers.put(same)  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_do_not_disturb_each_other(tmp_path: Path, method: str) -> None:
    """The handle of the parent is in use before the children start and while they read."""
    content = os.urandom(200_000)
    archive = Archive(write_zip(tmp_path / "a.zip", {"big.bin": content, "other.bin": b"x"}))
    assert archive.read("big.bin") == content
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    children = [context.Process(target=read_often, args=(archive, content, answers)) for _ in range(2)]
    for child in children:
        child.start()
    assert all(archive.read("big.bin") == content for _ in range(40))
    assert [answers.get(timeout=60) for _ in children] == [True, True]
    for child in children:
        child.join()


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write_folder(tmp_path, {"real/a.jpg": b"a", "images/b.jpg": b"b"})
    (tmp_path / "images" / "more").symlink_to(tmp_path / "real")
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    assert Folder(tmp_path).sizes("images", True) == {"b.jpg": 1, "more/a.jpg": 1}


def test_unreadable_folder_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    write_folder(tmp_path, {"images/b.jpg": b"b"})
    monkeypatch.setattr(source.os, "scandir", refused)
    with pytest.raises(DataError, match=r"images: cannot be read: Permission denied"):
        Folder(tmp_path).sizes("images", True)
    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(BadSample, match=r"b\.jpg: cannot be read: Permission denied"):
        Folder(tmp_path).read("images/b.jpg")


def test_an_archive_that_vanishes_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.zip: cannot be read: No such file"):
        Archive(tmp_path / "gone.zip").sizes("images", True)
