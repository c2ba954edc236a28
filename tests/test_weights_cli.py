"""`luma profile --weights`: a file that is refused is one line on stderr, one that is loaded is told and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from test_weights import Malicious

from luma_cli.cli.app import run
from luma_cli.store.database import open_write
from luma_cli.store.profiles import ProfileStore

QUICK = ["--res", "64", "--batch", "1", "--device", "cpu", "--max-seconds", "0.01"]
IN_PROCESS = ["--isolation", "none"]


def made(path: Path, fault: str) -> Path:
    """A file of weights with this fault."""
    state = timm.create_model("test_vit").state_dict()
    if fault == "pickle":
        torch.save({"state_dict": Malicious(path.parent / "ran")}, path)
    elif fault == "foreign":
        save_file(timm.create_model("test_vit", embed_dim=32, num_heads=2).state_dict(), path)
    else:
        save_file(state, path)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    return path


def test_a_truncated_file_is_one_line_on_stderr(tmp_path: Path) -> None:
    path = made(tmp_path / "broken.safetensors", "truncated")
    command = [sys.executable, "-P", "-m", "luma_cli", "profile", "test_vit", *QUICK, "--weights", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = refusal(done.stderr, path)
    assert "broken.safetensors is not a safetensors file" in line
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("fault", "name", "message"),
    [
        ("pickle", "evil.pth", "more than tensors and could run code; save model.state_dict() alone"),
        ("foreign", "other.safetensors", "does not fit test_vit: cls_token is [1, 1, 32], expected [1, 1, 64]"),
    ],
)
def test_a_file_that_does_not_fit_or_could_run_code_is_one_line_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: str, name: str, message: str
) -> None:
    path = made(tmp_path / name, fault)
    assert run(["profile", "test_vit", *QUICK, "--weights", str(path), *IN_PROCESS]) == 1
    assert message in refusal(capfd.readouterr().err, path)
    assert not (tmp_path / "ran").exists()


def refusal(stderr: str, path: Path) -> str:
    """The one line that names the file."""
    (line,) = [line for line in stderr.splitlines() if path.name in line]
    assert line.startswith("[1/1] test_vit at 64 px: failed: ")
    return line


def test_a_file_that_is_loaded_is_told_and_kept_with_what_was_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = made(tmp_path / "good.safetensors", "")
    assert run(["profile", "test_vit", *QUICK, "--weights", str(path), "--json", *IN_PROCESS]) == 0
    said = capfd.readouterr()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    resampled = "position embedding 10 x 10 -> 4 x 4 by bicubic resampling"
    assert f"weights {path} (SHA-256 {digest}): {resampled}; left out" in said.err
    (row,) = json.loads(said.out)["profiles"]
    with contextlib.closing(open_write()) as database:
        (kept,) = ProfileStore(database).latest([row["fingerprint"]]).values()
    assert kept.notes["weights"]["sha256"] == digest
    assert kept.notes["weights"]["conversions"][0] == resampled
    assert kept.notes["weights"]["normalisation"]["mean"] == [0.5, 0.5, 0.5]
