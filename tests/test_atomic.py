"""A file is the old one or the new one, whatever happens in between."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from luma_cli import files


def test_replaces_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    files.write_text(path, "old")
    files.write_text(path, "new é")
    assert path.read_bytes() == "new é".encode()
    assert [each.name for each in path.parent.iterdir()] == ["table.csv"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old", encoding="utf-8")

    def broken(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        files.write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_files_have_the_mode_that_the_umask_leaves(
    umask: int, file_mode: int, folder_mode: int, tmp_path: Path
) -> None:
    table, private, folder = tmp_path / "table.csv", tmp_path / "private", tmp_path / "folder"
    before = os.umask(umask)
    try:
        files.write_text(table, "text")
        private.touch(0o600)
        folder.mkdir(0o700)
        files.honour_umask(private)
        files.honour_umask(folder)
    finally:
        os.umask(before)
    assert [each.stat().st_mode & 0o777 for each in (table, private, folder)] == [file_mode, file_mode, folder_mode]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_name_of_any_length_that_the_disk_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    files.write_text(path, "text")
    assert path.read_text(encoding="utf-8") == "text"
