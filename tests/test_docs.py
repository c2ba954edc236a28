"""The documentation says what the program does."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from luma_cli.cli.app import run

ROOT = Path(__file__).resolve().parent.parent
CODE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "luma_cli").rglob("*.py")))


def test_help_page_is_current() -> None:
    result = subprocess.run([sys.executable, "docs/make.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_environment_variable_of_ours_is_documented() -> None:
    constants = set(re.findall(r"^(LUMA_[A-Z]+)\b.* = ", CODE, re.M))
    used = set(re.findall(r"\bLUMA_[A-Z]+\b", CODE)) - constants
    documented = set(
        re.findall(r"`(LUMA_[A-Z]+)", (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8"))
    )
    assert used == documented


def test_links_in_the_readme_and_docs_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.usefixtures("fitted")
@pytest.mark.parametrize(
    "line",
    re.findall(
        r"^    luma ((?:cost|recommend|front|estimate|next|scaling|findings)\b[^#\n]*)",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.M,
    ),
)
@pytest.mark.usefixtures("fitted")
def test_commands_of_the_readme_run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(shlex.split(line)) == 0
    assert capsys.readouterr().out


def test_folders_of_the_readme_exist() -> None:
    folders = re.findall(r"^\| `([a-z_]+)/` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert folders
    assert all((ROOT / folder).is_dir() for folder in folders)
