"""What luma answers from the shipped evidence with an empty database, against recorded answers (see golden_files)."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from golden_files import check_json, check_text, skip_unless_exact

from luma_cli.cli.app import run

DEVICE = "RTX 4090"  # its throughputs ship
ANSWERS = {
    "recommend_gflops": "recommend --budget 200gflops --json",
    "recommend_gflops_cityscapes": "recommend --budget 500gflops --dataset cityscapes --top 3 --json",
    "recommend_ms": "recommend --budget 20ms --top 3 --json --device",
    "recommend_why": "recommend --budget 100gflops --objective miou --why --top 3 --json",
    "recommend_audit": "recommend --audit --json",
    "front": "front --json",
    "front_cityscapes": "front --dataset cityscapes --json",
    "front_ms": "front --x latency --json --device",
    "next": "next --json",
    "findings": "findings --json",
    "scaling": "scaling --json",
    "scaling_cityscapes": "scaling --dataset cityscapes --json",
    "estimate": "estimate vit_b --json",
    "estimate_cityscapes": "estimate convnext_b --res 1024 --dataset cityscapes --head eomt --json",
    "evidence": "evidence list --json",
    "evidence_luma": "evidence list --head eomt --dataset cityscapes --json",
    "list": "list --json",
    "list_family": "list --family isotropic --res 384 --json",
    "show": "show vit_b --json",
    "cost": "cost vit_b convnext_b --res 512 1024 --json",
    "cost_eomt": "cost vit_b --res 512 --head eomt --json",
    # Integers of every card, exact: they are counted, and the table that ships is what recommend prices with.
    "cost_all": "cost --all --res 512 --json",
    "data": "data list --json",
}
SHEETS = {
    "recommend": "recommend --budget 200gflops",
    "recommend_why": "recommend --budget 100gflops --dataset cityscapes --why --top 3",
    "recommend_ms": "recommend --budget 20ms --device",
    "front": "front",
    "next": "next",
    "findings": "findings",
    "scaling": "scaling",
    "scaling_cityscapes": "scaling --dataset cityscapes",
    "estimate": "estimate vit_b",
    "show": "show vit_b",
    "cost": "cost vit_b convnext_b --res 512 1024",
    "cost_csv": "cost vit_b convnext_b --res 512 1024 --csv",
    "data": "data list",
    "evidence": "evidence list --backbone vit_b --limit 8",
    "runs": "runs",
}


def arguments(line: str) -> list[str]:
    """The words of a command line; a `--device` at its end takes the device."""
    return [*line.split(), *([DEVICE] if line.endswith("--device") else [])]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain(fitted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped model fitted, 80 columns, no colour."""
    for name, value in {"COLUMNS": "80", "LINES": "25", "TERM": "dumb", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("LUMA_DATA", raising=False)


@pytest.mark.parametrize("name", ANSWERS)
def test_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "audit" in name:
        skip_unless_exact()
    code = run(arguments(ANSWERS[name]))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    check_json(f"answers/{name}.json", json.loads(captured.out))


@pytest.mark.parametrize("name", SHEETS)
def test_tables(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe, and as drawn on a terminal of 80 columns."""
    code = run(arguments(SHEETS[name]))
    piped = capsys.readouterr()
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert run(arguments(SHEETS[name])) == code
    drawn = "\n".join(line.rstrip() for line in screen.getvalue().splitlines())
    check_text(
        f"tables/{name}.txt",
        f"$ luma {SHEETS[name]}\n{piped.out}--- stderr, exit code {code}\n{piped.err}--- on a terminal\n{drawn}\n",
    )
