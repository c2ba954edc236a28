"""Files that a run is started with are kept by their whole path: it goes on from any folder."""

from __future__ import annotations

from luma_cli.train.configure import Given, new_config, resumed_config


def test_files_are_kept_by_their_whole_path_and_names_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    saved = new_config(Given(backbone="test_vit", data="ade20k", imports=("mine.py", "package.module")))
    assert saved.imports == (str(tmp_path / "mine.py"), "package.module")
    assert saved.data == "ade20k"
    monkeypatch.chdir("/")
    assert resumed_config(Given(), saved) == saved
    moved = resumed_config(Given(imports=("elsewhere.py",)), saved)
    assert moved.imports == ("/elsewhere.py",)
