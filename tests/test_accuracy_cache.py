from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from accuracy_world import row, some_rows

from luma_cli.accuracy import model as models
from luma_cli.accuracy.model import LearnedModel, load_model
from luma_cli.accuracy.subjects import subject_of
from luma_cli.evidence.evidence import Evidence

SUBJECTS = [subject_of(name, "ade20k", resolution=512) for name in ("swin_tiny", "nobody_knows_s")]


@pytest.fixture(scope="module")
def rows() -> list[Evidence]:
    return some_rows(40)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, rows: list[Evidence]) -> Path:
    """A folder with the fit of the rows."""
    folder = tmp_path_factory.mktemp("filled")
    load_model(rows, folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path, filled: Path) -> Path:
    return Path(shutil.copytree(filled, tmp_path / "cache"))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of rows of every fit."""
    found: list[int] = []
    learn = models.learn

    def counted(rows: Sequence[Evidence]) -> LearnedModel:
        found.append(len(rows))
        return learn(rows)

    monkeypatch.setattr(models, "learn", counted)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir())


def test_the_same_evidence_is_not_fitted_again(rows: list[Evidence], cache: Path, fits: list[int]) -> None:
    kept = load_model(rows[::-1], cache)
    assert fits == []
    fresh = models.learn(rows)
    assert kept.predict(SUBJECTS) == fresh.predict(SUBJECTS)
    assert (kept.draws(SUBJECTS) == fresh.draws(SUBJECTS)).all()
    assert kept.effects(SUBJECTS[0]) == fresh.effects(SUBJECTS[0])
    assert kept.scale_note == fresh.scale_note


def test_other_evidence_is(rows: list[Evidence], cache: Path, fits: list[int]) -> None:
    better = replace(rows[0], miou_percent=rows[0].miou_percent + 0.1)
    load_model([better, *rows[1:]], cache)
    load_model(rows[1:], cache)
    assert fits == [len(rows), len(rows) - 1]
    load_model(rows, cache)
    assert len(fits) == 2


def test_other_variances_or_code_are_another_fit(rows: list[Evidence], monkeypatch: pytest.MonkeyPatch) -> None:
    before = models._key(rows)
    monkeypatch.setattr(models, "_TABLES", models._TABLES[1:])
    assert models._key(rows) != before


@pytest.mark.parametrize("suffix", [".json", ".f32"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise", "folder"])
def test_a_damaged_file_is_fitted_again_and_mended(
    rows: list[Evidence], cache: Path, fits: list[int], suffix: str, damage: str
) -> None:
    (path,) = cache.glob(f"*{suffix}")
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        noise = bytes([*whole[:100], whole[100] ^ 255, *whole[101:]])
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "noise": noise}[damage])
    assert load_model(rows, cache).predict(SUBJECTS)
    assert fits == [len(rows)]
    if damage != "folder":
        load_model(rows, cache)
        assert len(fits) == 1


@pytest.mark.parametrize(
    "change", [{"keys": []}, {"mean": [1.0]}, {"num_draws": 0}, {"widths": 3}, {"sightings": [[1]]}]
)
def test_a_description_that_does_not_fit_is_not_trusted(
    rows: list[Evidence], cache: Path, fits: list[int], change: dict[str, object]
) -> None:
    (path,) = cache.glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    load_model(rows, cache)
    assert fits == [len(rows)]


@pytest.mark.parametrize("text", ["[]", "null", "3", '"text"', "{}"])
def test_json_of_something_else_is_not_trusted(rows: list[Evidence], cache: Path, fits: list[int], text: str) -> None:
    (path,) = cache.glob("*.json")
    path.write_text(text)
    load_model(rows, cache)
    assert fits == [len(rows)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_no_error(rows: list[Evidence], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert load_model(rows, tmp_path).predict(SUBJECTS)
    assert load_model(rows, tmp_path / "deeper").predict(SUBJECTS)


def test_a_file_where_the_folder_should_be_is_no_error(rows: list[Evidence], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert load_model(rows, tmp_path / "file").predict(SUBJECTS)
    assert load_model(rows, tmp_path / "file" / "deeper").predict(SUBJECTS)


def test_a_full_disk_is_no_error(rows: list[Evidence], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(models.files, "write_bytes", full)
    assert load_model(rows, tmp_path).predict(SUBJECTS)
    assert files(tmp_path) == []


def test_writers_at_the_same_time_leave_a_whole_fit(rows: list[Evidence], tmp_path: Path, fits: list[int]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load_model(rows, tmp_path).predict(SUBJECTS), range(4)))
    assert all(each == found[0] for each in found)
    count = len(fits)
    assert load_model(rows, tmp_path).predict(SUBJECTS) == found[0]
    assert len(fits) == count
    assert [path.suffix for path in files(tmp_path)] == [".f32", ".json"]


def test_old_fits_and_orphans_are_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "orphan.f32").write_bytes(b"")
    os.utime(cache / "orphan.f32", (0, 0))
    (cache / "being-written.f32").write_bytes(b"")
    for number in range(6):
        load_model([row(miou=40.0 + number)], cache)
    assert len(list(cache.glob("*.json"))) == 4
    assert not (cache / "orphan.f32").exists()
    assert (cache / "being-written.f32").exists()


def test_no_evidence_is_kept_too(tmp_path: Path, fits: list[int]) -> None:
    first, second = (load_model([], tmp_path).predict(SUBJECTS) for _ in range(2))
    assert fits == [0]
    assert first == second


def test_neither_path_imports_scipy_or_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from luma_cli.accuracy.model import load_model\n"
        "from luma_cli.accuracy.subjects import subject_of\n"
        "for _ in range(2):\n"
        "    model = load_model([], Path(sys.argv[1]))\n"
        "    model.draws([subject_of('swin_tiny', 'ade20k')])\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'scipy', 'torch', 'timm', 'pandas'}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
