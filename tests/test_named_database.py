"""A file that is named with --db and is no luma database is an error in every command, in the same words."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from luma_cli.cli.app import run

COMMANDS = (
    "recommend --budget 200gflops",
    "recommend --budget 200gflops --why-not vit_b.dinov3",
    "compare vit_b.dinov3 swin_b",
    "estimate vit_b --res 512",
    "front",
    "next",
    "findings",
    "scaling",
    "runs list",
    "evidence list",
    "db info",
    "db check",
    "db query 'SELECT 1'",
)


@pytest.mark.usefixtures("fitted")
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_database_is_said(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = tmp_path / "notes.txt"
    named.write_text("no database")
    assert run([*shlex.split(command), "--db", str(named)]) == 1
    assert f"{named} is not a luma database" in capsys.readouterr().err
    assert named.read_text() == "no database"


def test_a_plot_makes_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plot", "front", "--out", str(tmp_path / "new" / "front.png")]) == 2
    assert f"mkdir -p {tmp_path / 'new'}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
