"""The index of timm: what ships is what installed timm says, and another timm is indexed once."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from luma_cli.catalogue import timm_index
from luma_cli.errors import BadCard

NEW = "99.0.0"
TABLE = (
    "architecture,module,class,input_size,default_tag,tags,replaced_by\n"
    "made_up,made,made.Up,64,a,a=mit b=,\n"
    "old_name,,,,,,made_up.a\n"
)


def write_table(path: Path, version: str = NEW) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(timm_index.version_line(version) + TABLE, encoding="utf-8")
    return ""


def test_the_shipped_index_is_what_a_refresh_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of the user's whose files would hide the standard library's."""
    if timm_index.read_index(timm_index.shipped_path()).version != importlib.metadata.version("timm"):
        pytest.skip("the shipped index is of another timm")
    (tmp_path / "csv.py").write_text("raise AssertionError('hidden')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm_index, "installed_version", lambda: NEW)
    assert not timm_index.is_current()
    found = timm_index.index_for(NEW, timm_index.shipped_path())
    assert f"not of timm {NEW}" in found.stale
    written = timm_index.cache_path(NEW)
    assert written.read_text(encoding="utf-8") == timm_index.shipped_path().read_text(encoding="utf-8")
    assert sorted(one.name for one in written.parent.iterdir()) == [f"timm_index-{NEW}.csv", f"timm_index-{NEW}.failed"]


def test_installed_version_is_that_of_the_metadata() -> None:
    assert timm_index.installed_version() == importlib.metadata.version("timm")


def test_every_architecture_has_a_module_a_class_and_known_default_tag() -> None:
    shipped = timm_index.read_index(timm_index.shipped_path())
    assert len(shipped.entries) > 1300
    assert len({entry.module for entry in shipped.entries.values()}) == 98
    for entry in shipped.entries.values():
        assert entry.module
        assert entry.cls.count(".") == 1
        assert not entry.default_tag or entry.default_tag in entry.tags
    for successor in shipped.replaced.values():
        assert shipped.has(successor)


def test_the_index_holds_no_address() -> None:
    text = timm_index.shipped_path().read_text(encoding="utf-8")
    assert "http" not in text
    assert "/" not in text.replace("/_", "")


def test_the_index_of_this_machine_is_current() -> None:
    if timm_index.read_index(timm_index.shipped_path()).version == importlib.metadata.version("timm"):
        assert timm_index.is_current()
        assert timm_index.load_index().stale == ""


def test_a_matching_timm_reads_the_shipped_index_and_generates_nothing() -> None:
    version = timm_index.read_index(timm_index.shipped_path()).version
    found = timm_index.index_for(version, timm_index.shipped_path(), lambda path: pytest.fail(f"generated {path}"))
    assert found.version == version
    assert not found.stale


def test_another_timm_is_indexed_once() -> None:
    calls = []

    def generate(path: Path) -> str:
        calls.append(path)
        return write_table(path)

    first = timm_index.index_for(NEW, timm_index.shipped_path(), generate)
    second = timm_index.index_for(NEW, timm_index.shipped_path(), generate)
    assert calls == [timm_index.cache_path(NEW)]
    assert first == second
    assert first.version == NEW
    assert first.entries["made_up"] == timm_index.IndexEntry(
        "made_up", "made", "made.Up", {"a": "mit", "b": ""}, "a", 64
    )
    assert first.replaced == {"old_name": "made_up.a"}


def test_an_index_that_cannot_be_generated_falls_back_says_so_and_is_not_tried_again() -> None:
    calls = []

    def generate(path: Path) -> str:
        calls.append(path)
        return "ImportError: no torchvision"

    first = timm_index.index_for(NEW, timm_index.shipped_path(), generate)
    second = timm_index.index_for(NEW, timm_index.shipped_path(), generate)
    assert len(calls) == 1
    assert "no torchvision" in first.stale
    assert NEW in first.stale
    assert first.stale == second.stale
    assert first.has("vit_base_patch16_224.mae")


def test_a_failure_is_tried_again_after_a_day() -> None:
    timm_index.index_for(NEW, timm_index.shipped_path(), lambda _: "ImportError: no torchvision")
    written = timm_index.cache_path(NEW).with_suffix(".failed").stat().st_mtime
    soon = timm_index.index_for(NEW, timm_index.shipped_path(), lambda _: pytest.fail("generated"), written + 23 * 3600)
    assert soon.stale
    later = timm_index.index_for(NEW, timm_index.shipped_path(), write_table, written + 25 * 3600)
    assert (later.version, later.stale) == (NEW, "")


def test_a_cache_folder_that_cannot_be_written_costs_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    found = timm_index.index_for(NEW, timm_index.shipped_path(), lambda path: f"NotADirectoryError: {path.parent}")
    assert "NotADirectoryError" in found.stale
    assert found.has("resnet50")


def test_a_generator_that_dies_half_way_leaves_no_index(tmp_path: Path) -> None:
    found = timm_index.index_for(NEW, timm_index.shipped_path(), lambda path: write_table(path, "98.0.0"))
    assert f"not of timm {NEW}" in found.stale
    (tmp_path / "torn.csv").write_text(timm_index.version_line(NEW) + "architecture,mod", encoding="utf-8")
    with pytest.raises(BadCard, match="no index of timm"):
        timm_index.read_index(tmp_path / "torn.csv")


def test_no_timm_at_all_reads_the_shipped_index() -> None:
    assert timm_index.index_for("", timm_index.shipped_path(), lambda _: pytest.fail("generated")).has("resnet50")
