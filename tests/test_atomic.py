"""A file is the old one or the new one, whatever happens in between."""

from __future__ import annotations

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
