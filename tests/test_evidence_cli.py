"""`luma evidence` as a user meets it: tables, files, questions and exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path

import pexpect
import pytest
from evidence_samples import GOOD, row, table
from rich.console import Console

from luma_cli.cli.app import run
from luma_cli.evidence.evidence import COLUMNS, read_evidence
from luma_cli.report.evidence import evidence_tables
from luma_cli.report.table import draw

MIXED = (GOOD, GOOD.replace("51.2", "0.534"))


def test_the_list_has_a_summary_and_says_what_it_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evidence", "--dataset", "ade20k", "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "1 published LUMA figure, " in out
    assert " more: --limit 0 shows all" in out
    assert [line.split("\t")[0] for line in out.splitlines() if line.startswith("ref-")] == ["ref-0086", "ref-0788"]


def test_json_has_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evidence", "list", "--json", "--head", "luma"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["rows"], found["by_provenance"]) == (1, 1, {"published LUMA": 1})
    assert set(found["evidence"][0]) == set(COLUMNS)


def test_nothing_matches(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evidence", "--backbone", "nonesuch"]) == 0
    assert "no result matches" in capsys.readouterr().out
    assert run(["evidence", "show", "ref-9999"]) == 2
    assert "no result 'ref-9999'" in capsys.readouterr().err


def test_a_terminal_of_80_columns() -> None:
    rows = [
        row(id="ref-0001", backbone="vit_base_patch16_dinov3.lvd1689m", pretraining="supervised_in21k", extra_data="x"),
        row(id="imp-12345678", head="vit-adapter+mask2former", eval="ms+flip", height=512, width=1024, doubtful="x"),
        row(id="run-1", dataset="cityscapes", provenance="own run", recipe="measured here", regime="frozen", eval=""),
    ]
    text = io.StringIO()
    for each in evidence_tables(rows, 0):
        draw(each, Console(file=text, width=80, color_system=None))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    assert "ADE20K: 2 results, 2 figures of other heads (1 imported)" in lines
    assert any(line.split()[:2] == ["ref-0001", "50.0+"] and "in21k" in line for line in lines)
    assert any(line.split()[:2] == ["imp-12345678", "50.0?"] and "512x1024 ms" in line for line in lines)
    assert any("512 scales?" in line for line in lines)


def test_import_export_and_rm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = table(tmp_path, GOOD, GOOD.replace("51.2", "")), tmp_path / "mine.csv"
    assert run(["evidence", "import", str(path), "--dry-run"]) == 0
    assert "2 rows read: 1 would be taken in, 1 rejected" in capsys.readouterr().out
    assert run(["evidence", "import", str(path)]) == 0
    assert "rejected row 2 (line 3): mIoU is empty" in capsys.readouterr().out
    assert run(["evidence", "import", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["new"], found["known"], found["rejected"][0]["row"]) == ([], 1, 2)
    assert run(["evidence", "export", "--imported", "--out", str(out)]) == 0
    assert [each.miou_percent for each in read_evidence(out)] == [51.2]
    assert run(["evidence", "rm", "--source", "mine"]) == 2
    assert "removes the imported result imp-" in capsys.readouterr().err
    assert run(["evidence", "rm", "--source", "mine", "--yes"]) == 0
    assert run(["evidence", "export", "--imported"]) == 0
    assert len(list(csv.reader(io.StringIO(capsys.readouterr().out.split("\n", 1)[1])))) == 1


@pytest.mark.parametrize(
    ("lines", "code", "said"),
    [
        ((), 1, "has a heading and no row below it"),
        ((GOOD.replace("51.2", "nan"),), 1, "no row was accepted"),
        (MIXED, 2, "add --scale fraction or --scale percent"),
    ],
)
def test_exit_codes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: tuple[str, ...], code: int, said: str
) -> None:
    assert run(["evidence", "import", str(table(tmp_path, *lines))]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing is named"),
        (["ref-0001"], "no imported result 'ref-0001'"),
        (["--source", "x"], "no imported result of source 'x'; sources: there are none"),
    ],
)
def test_nothing_to_remove(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evidence", "rm", *arguments, "--yes"]) == 2
    assert said in capsys.readouterr().err


def test_an_export_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["evidence", "export", "--out", str(tmp_path)]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_a_terminal_is_asked_until_it_answers(tmp_path: Path) -> None:
    path = table(tmp_path, *MIXED)
    arguments = ["-m", "luma_cli", "evidence", "import", str(path)]
    with pexpect.spawn(sys.executable, arguments, encoding="utf-8", timeout=30, env=dict(os.environ)) as child:
        for answer in ("perhaps", "fraction"):
            child.expect("Are these figures")
            child.sendline(answer)
        child.expect("2 rows read: 2 taken in")
        child.expect(pexpect.EOF)
    assert child.exitstatus == 0
