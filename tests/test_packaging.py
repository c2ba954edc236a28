"""The built wheel holds every content file and works from `/` and beside a `models/` and `db/` of others."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CONTENT = ("models", "profiles", "db")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel, built offline by hatchling."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as pip would lay them out."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    return folder


def content_files(root: Path) -> set[str]:
    """Names of all content files below `root`."""
    return {
        path.relative_to(root).as_posix()
        for folder in CONTENT
        for path in (root / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_every_content_file(installed: Path) -> None:
    assert content_files(installed / "luma_cli" / "_content") == content_files(ROOT)
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == {"luma_cli"}


def test_sdist_holds_what_the_wheel_is_built_from(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert content_files(ROOT) <= names
    assert {"Makefile", "LICENSE", "README.md", "pyproject.toml", "luma_cli/__init__.py"} <= names


@pytest.mark.parametrize("own_folders", [False, True])
def test_installed_luma_ignores_the_folder_it_runs_in(installed: Path, tmp_path: Path, own_folders: bool) -> None:
    cwd = tmp_path if own_folders else Path("/")
    if own_folders:
        for name in ("models", "db", "profiles", "luma_cli", "timm", "torch"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    program = (
        "import luma_cli, sys; from luma_cli.cli.app import run;"
        f"assert luma_cli.__file__.startswith({str(installed)!r}), luma_cli.__file__;"
        "sys.exit(run(['cost', 'vit_b', '--res', '512', '--json']) or run(['recommend', '--budget', '200gflops']))"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert '"macs": 122650180608' in result.stdout
