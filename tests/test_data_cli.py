"""`luma data` as a user meets it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dataset_files import OWN_CARD, ade_files, encoded, picture, write_folder

from luma_cli.catalogue.datasets import load_card
from luma_cli.cli.app import run

ADE = "ADEChallengeData2016"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def drawn(tmp_path: Path, capsys: Capture) -> Path:
    assert run(["data", "sample", "ade20k", str(tmp_path / "ade"), "--n", "5", "--seed", "3"]) == 0
    said = capsys.readouterr()
    assert said.out == f"drew 4 images to train on and 1 to validate on: {tmp_path}/ade\n"
    assert f"luma data check ade20k --root {tmp_path}/ade" in said.err
    return tmp_path / "ade"


def test_sample_then_check(drawn: Path, capsys: Capture) -> None:
    assert run(["data", "check", "ade20k", "--root", str(drawn)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0].startswith(f"# ADE20K, SceneParse150 at {drawn}: train 4 images, ade20k#")
    assert lines[1].split("\t") == ["class", "train images", "train pixels %", "val images", "val pixels %"]
    assert [line.split("\t")[0] for line in lines[2:152]] == list(load_card("ade20k").table.names)
    assert lines[152].startswith("(ignored)\t\t")
    assert "# val: note: drawn by luma, not the official dataset" in lines
    assert "checked 5 of 5" in said.err


def test_shares_add_up(drawn: Path, capsys: Capture) -> None:
    run(["data", "check", "ade20k", "--root", str(drawn)])
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines() if line.count("\t") == 4][1:]
    assert sum(float(row[2]) for row in rows) == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize(
    "options", [["--split", "val"], ["--split", "train", "val"], ["--split", "train", "--split", "val"]]
)
def test_json_of_chosen_splits(drawn: Path, capsys: Capture, options: list[str]) -> None:
    assert run(["data", "check", "--json", *options, "ade20k", "--root", str(drawn)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["dataset"], found["ok"]) == (1, "ade20k", True)
    assert [each["split"] for each in found["splits"]] == [name for name in options if not name.startswith("--")]
    last = found["splits"][-1]
    assert last["images"] == 1
    assert last["official_images"] == 2000
    assert len(last["classes"]) == 150
    assert last["problems"] == []
    assert sum(each["pixels"] for each in last["classes"]) + last["ignored_pixels"] == last["pixels"]


def test_problems_are_named_and_end_with_1(drawn: Path, capsys: Capture) -> None:
    for archive in drawn.glob("*.zip"):
        archive.unlink()
    bad = drawn / ADE / "images" / "training" / "ADE_train_00000002.jpg"
    bad.write_bytes(bad.read_bytes()[:100])
    (drawn / ADE / "annotations" / "validation" / "ADE_val_00000001.png").unlink()
    assert run(["data", "check", "ade20k", "--root", str(drawn)]) == 1
    said = capsys.readouterr()
    assert f"# train: problem: {bad}: damaged" in said.out
    assert f"# val: problem: {drawn}/{ADE}/images/validation/ADE_val_00000001.jpg: no label file" in said.out
    assert said.err.splitlines()[-1] == f"luma: 2 problems in ade20k at {drawn}, named above"
    assert run(["data", "check", "ade20k", "--root", str(drawn), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert [len(each["problems"]) for each in found["splits"]] == [1, 1]


def test_own_dataset(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "it's [mine] ü"
    files = {
        "images/a.jpg": encoded(picture(8, 8, 0), "JPEG"),
        "masks/a_mask.png": encoded(picture(8, 8, 0)[..., 0] // 128),
    }
    write_folder(folder, {"own.toml": OWN_CARD.encode(), **files})
    assert run(["data", "check", str(folder / "own.toml")]) == 0
    assert "train 1 images, own#" in capsys.readouterr().out


def test_list(drawn: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUMA_DATA", raising=False)
    assert run(["data", "list"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines() if not line.startswith("#")]
    assert [row[0] for row in rows[1:]] == ["ade20k", "cityscapes"]
    assert rows[1][2:] == ["150", "20,210", "2,000", "not found"]
    monkeypatch.setenv("LUMA_DATA", str(drawn))
    assert run(["data", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["datasets"]
    assert [each["place"] for each in found] == [str(drawn), None]
    assert found[1]["images"] == {"train": 2975, "val": 500}


@pytest.mark.parametrize(
    ("line", "code", "expected"),
    [
        ("check ade20 --root .", 2, "did you mean 'ade20k'"),
        ("check ade20k --root nowhere", 1, "ADEChallengeData2016.zip"),
        ("check ade20k --root . --split tast", 2, "'train', 'val', 'test'"),
        ("check ade20k --root . --workers 0", 2, "--workers"),
        ("check missing.toml", 2, "no such file"),
        ("check", 2, "luma data check --help"),
        ("sample coco x", 2, "ade20k or cityscapes"),
        ("sample ade20k x --n 1", 2, "at least 2"),
        ("sample ade20k x --seed -1", 2, "--seed"),
    ],
)
def test_wrong_input_is_one_line(
    line: str, code: int, expected: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["data", *line.split()]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("luma: ")
    assert expected in said.err
    assert list(tmp_path.iterdir()) == []


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for children in /proc")
@pytest.mark.parametrize(
    ("signum", "code", "after_seconds"),
    [(signal.SIGINT, 130, 0), (signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 1), (signal.SIGKILL, -9, 1)],
)
def test_stopping_leaves_no_process(tmp_path: Path, signum: int, code: int, after_seconds: float) -> None:
    """Ctrl-C reaches the whole group, SIGTERM and SIGKILL the first process alone."""
    files = ade_files(load_card("ade20k").table, 1, 1)
    write_folder(tmp_path, files)
    folder = tmp_path / ADE / "images" / "training"
    (folder / "ADE_train_00000001.jpg").write_bytes(encoded(picture(2000, 3000, 0), "JPEG"))
    for index in range(2, 400):
        for kind, suffix in (("images", "jpg"), ("annotations", "png")):
            first = tmp_path / ADE / kind / "training" / f"ADE_train_00000001.{suffix}"
            os.link(first, first.with_name(f"ADE_train_{index:08d}.{suffix}"))
    command = [
        sys.executable,
        "-P",
        "-m",
        "luma_cli",
        "data",
        "check",
        "ade20k",
        "--root",
        str(tmp_path),
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while len(children_of(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(after_seconds)
    children = children_of(process.pid)
    assert len(children) >= 2
    (os.killpg if signum == signal.SIGINT else os.kill)(process.pid, signum)
    out, error = process.communicate(timeout=30)
    assert process.returncode == code, error
    assert out == ""
    assert "Traceback" not in error
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_no_torch_is_imported(drawn: Path) -> None:
    program = (
        "import sys; from luma_cli.cli.app import run;"
        f"code = run(['data', 'list']) or run(['data', 'check', 'ade20k', '--root', {str(drawn)!r}]);"
        "heavy = {'torch', 'torchvision', 'timm', 'scipy'} & set(sys.modules); sys.exit(code or str(heavy or '') or 0)"
    )
    result = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_names_that_no_terminal_should_be_sent(tmp_path: Path, capsys: Capture) -> None:
    name = os.fsdecode(b"caf\xe9\x1b[31m")  # not UTF-8, and a control sequence
    image = encoded(picture(8, 8, 0), "JPEG")
    files = {f"images/{name}.jpg": image, f"masks/{name}_mask.png": b"", "images/b.jpg": image}
    write_folder(
        tmp_path,
        {"own.toml": OWN_CARD.encode(), **files, "masks/b_mask.png": encoded(picture(8, 8, 0)[..., 0] * 0 + 255)},
    )
    assert run(["data", "check", str(tmp_path / "own.toml")]) == 1
    said = capsys.readouterr().out
    assert r"masks/caf\udce9\x1b[31m_mask.png: no PNG, TIFF" in said
    assert "\x1b" not in said
    assert "1 image has only ignored pixels: b" in said
