"""`luma findings`: what it prints at 80 columns, in a pipe and as JSON, and what it refuses."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from findings_world import tables

from luma_cli.cli.app import run as command
from luma_cli.findings.finding import UNDECIDED, EvidenceRow, Figure, Finding, Interval
from luma_cli.findings.findings import CLAIMS, ClaimVerdicts, findings
from luma_cli.findings.pretraining import pretraining
from luma_cli.report.findings import interval_text, print_findings

FINDING = Finding(
    name="heads",
    claim="LUMA matches EoMT's accuracy at lower cost.",
    rule="Stated beforehand.",
    verdict=UNDECIDED,
    because="LUMA needs fewer multiply-adds at 512 px; accuracy: 1 backbone of your own with both heads",
    figures=(
        Figure("multiply-adds, LUMA over EoMT, 512 px, median", Interval(0.99064), "x", "78 backbones", digits=3),
        Figure("mIoU of LUMA minus EoMT, ADE20K", Interval(0.1, -0.4, 0.6), "points", "4 backbones"),
        Figure("mIoU of nothing", None, "points", why_not="no run"),
    ),
    settle=("luma train vit_s.dinov2 --data ade20k --head eomt",),
    notes=("multiply-adds at inference",),
    rows=(EvidenceRow("run-1", "50.0 mIoU, \x1b[31mred", "your run run-1"),),
)
DRAWN = """\
heads: NOT ENOUGH EVIDENCE
  LUMA matches EoMT's accuracy at lower cost.
  Why: LUMA needs fewer multiply-adds at 512 px; accuracy: 1 backbone of your
  own with both heads.
    0.991x                   multiply-adds, LUMA over EoMT, 512 px, median (78
                             backbones)
    0.10 points [-0.40, 0.60] mIoU of LUMA minus EoMT, ADE20K (4 backbones)
    -                        mIoU of nothing (no run)
  * multiply-adds at inference
  Based on 1 row from 1 source; rule and rows:
    luma findings --dataset ade20k --claim heads --rows
  To run:
    luma train vit_s.dinov2 --data ade20k --head eomt
"""


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _nothing_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LUMA_DB", str(tmp_path / "luma.db"))
    monkeypatch.setenv("COLUMNS", "80")


def drawn(answer: ClaimVerdicts, with_rows: bool = False) -> str:
    file = Terminal()
    print_findings(answer, with_rows, file, why=True)
    return file.getvalue()


def test_a_block_at_80_columns() -> None:
    other = replace(FINDING, name="other")
    text = drawn(ClaimVerdicts("ade20k", (FINDING, other)))
    assert text.startswith(DRAWN)
    assert all(len(line) < 80 for line in text.splitlines())
    assert "Brackets are 90% intervals" in text


def test_one_claim_says_its_rule_and_rows_say_where_from() -> None:
    assert "Rule: Stated beforehand." in drawn(ClaimVerdicts("ade20k", (FINDING,)))
    text = drawn(ClaimVerdicts("ade20k", (FINDING,)), with_rows=True)
    assert "run-1: 50.0 mIoU" in text
    assert "\x1b" not in text  # text from outside cannot colour a terminal


def test_a_pipe_gets_one_line_a_figure_and_one_a_row() -> None:
    file = io.StringIO()
    print_findings(ClaimVerdicts("ade20k", (FINDING,)), file=file)
    lines = [line.split("\t") for line in file.getvalue().splitlines() if not line.startswith("#")]
    assert lines[0][:5] == ["claim", "verdict", "figure", "value", "low 90%"]
    assert lines[2] == [
        *("heads", UNDECIDED, "mIoU of LUMA minus EoMT, ADE20K", "0.1", "-0.4", "0.6", "points", "4 backbones")
    ]
    assert lines[3][3:6] == ["", "", ""]
    file = io.StringIO()
    print_findings(ClaimVerdicts("ade20k", (FINDING,)), with_rows=True, file=file)
    assert file.getvalue().splitlines()[0] == "claim\tid\tsays\tsource"


def test_json_has_no_nan_and_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["findings", "--claim", "pretraining", "--claim", "heads", "--json", "--rows"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["schema"] == 1
    assert [each["name"] for each in said["findings"]] == ["pretraining", "heads"]
    first = said["findings"][0]
    assert first["num_rows"] == len(first["rows"]) > 100
    assert first["verdict"] in ("supported", "contradicted", UNDECIDED)
    assert first["figures"][0]["interval_90"][0] < first["figures"][0]["value"]


def test_every_claim_is_tested_on_what_ships_without_torch(tmp_path: Path) -> None:
    code = (
        "import json, sys; from luma_cli.cli.app import run; assert run(['findings', '--json']) == 0;"
        "assert not {'torch', 'timm', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = {each["name"]: each for each in json.loads(done.stdout)["findings"]}
    assert tuple(said) == tuple(CLAIMS)
    # What ships has no profile and no own run: nothing that needs one is decided.
    assert {said[name]["verdict"] for name in ("front", "mixers", "heads")} == {UNDECIDED}
    assert all(each["settle"] for each in said.values() if each["verdict"] == UNDECIDED)


def test_docs_say_what_is_printed() -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "understand" / "findings.md").read_text(encoding="utf-8")
    table = text.partition("| figure | value |")[2].partition("\n\n")[0].splitlines()[2:]
    said = dict(line.strip("| ").split(" | ") for line in table)
    found = [each for dataset in ("cityscapes", "ade20k") for each in findings(dataset).findings]
    printed = {figure.what: interval_text(figure) for finding in found for figure in finding.figures}
    assert len(said) > 5
    assert said == {what: printed.get(what, "") for what in said}
    assert all(f"`{name}`" in text for name in tuple(CLAIMS))


def test_bad_names_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["findings", "--claim", "moon"]) == 2
    assert "claim 'moon' is not known; use front, pretraining" in capsys.readouterr().err
    assert command(["findings", "--dataset", "coco"]) == 2


def test_a_store_that_cannot_be_read_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database at all, just text" * 10)
    monkeypatch.setenv("LUMA_DB", str(broken))
    found = findings(claims=["heads"])
    assert found.findings[0].verdict == UNDECIDED
    assert "your own results were not read" in found.notes[0]


def test_an_unknown_device_is_said() -> None:
    assert "nothing on H200" in findings(claims=["mixers"], device="H200").notes[0]


def test_interval_text() -> None:
    assert interval_text(Figure("x", Interval(0.5, 0.25, 0.75), "r")) == "0.50 [0.25, 0.75]"
    assert interval_text(Figure("x", Interval(12.34), "points", digits=0)) == "12 points"


def test_findings_do_not_depend_on_the_order_of_evidence() -> None:
    rows = tables(2.0, 1.0, num_papers=5)
    one, other = (pretraining(each, "ade20k") for each in (rows, rows[::-1]))
    assert (one.verdict, one.rows) == (other.verdict, other.rows)
    for mine, theirs in zip(one.figures, other.figures, strict=True):
        assert (mine.value is None) == (theirs.value is None)
        if mine.value is not None and theirs.value is not None:
            assert mine.value.value == pytest.approx(theirs.value.value)
            assert mine.value.low == pytest.approx(theirs.value.low)


def test_all_claims_fit_on_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen = Terminal()
    print_findings(findings("ade20k"), file=screen)
    lines = screen.getvalue().splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    assert (
        sum(line.startswith(("front ", "pretraining ", "imagenet ", "split ", "mixers ", "heads ")) for line in lines)
        == 6
    )
