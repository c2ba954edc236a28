"""Corrections of the published table: each fits, has a reason, and shows in the shipped rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from luma_cli import files
from luma_cli.errors import BadCard
from luma_cli.evidence.evidence import Evidence, load_reference, to_row
from luma_cli.evidence.reference import Correction, correct, read_corrections

ROW = Evidence("ref-0001", "other head", "primary", "ade20k", "val", "setr", "fine-tuned", "single-scale", "vit", 48.1)


def test_the_shipped_table_has_every_correction() -> None:
    rows = {row.id: to_row(row) for row in load_reference()}
    corrections = read_corrections(files.root() / "profiles" / "reference" / "corrections.csv")
    assert len(corrections) > 100
    for each in corrections:
        if each.drops:
            assert each.id not in rows
        else:
            assert rows[each.id][each.column] == each.new, each
        assert each.old != each.new, each


def test_a_column_is_replaced() -> None:
    found = correct([ROW], [Correction("ref-0001", "miou_percent", "48.1", "48.4", "misprint")])
    assert [row.miou_percent for row in found] == [48.4]


def test_a_row_is_dropped() -> None:
    assert correct([ROW], [Correction("ref-0001", "id", "ref-0001", "", "made up")]) == []


@pytest.mark.parametrize(
    ("correction", "said"),
    [
        (Correction("ref-0001", "head", "upernet", "fcn", "x"), "head is 'setr', the correction expects 'upernet'"),
        (Correction("ref-0002", "head", "setr", "fcn", "x"), "rows that are not there: ref-0002"),
        (Correction("ref-0001", "miou_percent", "48.1", "481", "x"), "correction of ref-0001: mIoU is 481"),
    ],
)
def test_a_correction_that_does_not_fit_is_refused(correction: Correction, said: str) -> None:
    with pytest.raises(BadCard, match=said):
        correct([ROW], [correction])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,column,new,reason\n", "expected"),
        ("id,column,old,new,reason\nref-0001,hed,a,b,c\n", "line 2: column 'hed'"),
        ("id,column,old,new,reason\nref-0001,head,a,b,\n", "line 2: ref-0001 has no reason"),
    ],
)
def test_a_bad_file_of_corrections_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "corrections.csv"
    path.write_text(text)
    with pytest.raises(BadCard, match=said):
        read_corrections(path)
