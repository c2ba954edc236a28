"""Files of results of every kind that people have, and files that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from luma_cli.errors import UsageError
from luma_cli.evidence.imported import MOST_BYTES, Record, read_table

KNOWN = ("dataset", "backbone", "miou", "source")
TEXT = "dataset,backbone,miou\nade20k,vit_b,48.1\n"
EXPECTED = Record(1, 2, {"dataset": "ade20k", "backbone": "vit_b", "miou": "48.1"})


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "results.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\r"),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace(",", "\t").encode("utf-16"),
        TEXT.replace("dataset,backbone,miou", " Dataset , backbone,mIoU"),
        TEXT.replace("48.1", "48.1,,"),
        TEXT + ",,\n\n",
    ],
    ids=["comma", "semicolon", "tab", "crlf", "cr", "bom", "utf-16", "spelling", "empty cells", "empty rows"],
)
def test_one_table_in_many_spellings(tmp_path: Path, content: bytes | str) -> None:
    assert read_table(written(tmp_path, content), KNOWN).records == (EXPECTED,)


def test_a_comma_is_decimal_only_between_semicolons(tmp_path: Path) -> None:
    assert not read_table(written(tmp_path, TEXT), KNOWN).decimal_comma
    assert read_table(written(tmp_path, TEXT.replace(",", ";")), KNOWN).decimal_comma


def test_line_breaks_in_quotes_and_what_a_terminal_would_obey(tmp_path: Path) -> None:
    text = 'dataset,backbone,source\nade20k,"vit\x1b[31m","a ""good""\n  paper"\nade20k,vit,x\n'
    first, second = read_table(written(tmp_path, text), KNOWN).records
    assert first.cells == {"dataset": "ade20k", "backbone": "vit[31m", "source": 'a "good" paper'}
    assert (first.row, first.line, second.row, second.line) == (1, 3, 2, 4)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("ade20k,vit", "has 2 cells, the heading 3"),
        ("ade20k,vit,48,1", "has 4 cells, the heading 3"),
        ("ade20k," + "v" * 3000 + ",48", "backbone has 3,000 characters, expected at most 2,000"),
        ("ade20k," + "v" * 200_000 + ",48", "is not valid CSV: field larger than field limit (131072)"),
    ],
)
def test_a_bad_row_does_not_spoil_the_next(tmp_path: Path, line: str, fault: str) -> None:
    found = read_table(written(tmp_path, TEXT + line + "\n" + TEXT.splitlines()[1]), KNOWN).records
    assert [record.reason for record in found] == ["", fault, ""]


def test_a_quote_that_is_never_closed(tmp_path: Path) -> None:
    found = read_table(written(tmp_path, TEXT + 'ade20k,"vit,48\nade20k,vit,49\n'), KNOWN).records
    assert [record.reason for record in found] == ["", "is not valid CSV: unexpected end of data"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"dataset backbone miou\nade20k vit 48\n", "has no column that luma knows"),
        (b'backbone,"mi"ou,miou\n', "has no column that luma knows"),
        (b"backbone,miou,mIoU\n", "column 'miou' is there twice"),
        (bytes(range(256)), "is a binary file"),
        ("backbone,miou\nMühle,48\n".encode("latin-1"), "is not utf-8 text"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_table(written(tmp_path, content), KNOWN)


def test_no_file_a_folder_and_a_huge_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_table(tmp_path / "none.csv", KNOWN)
    with pytest.raises(UsageError, match="is a folder"):
        read_table(tmp_path, KNOWN)
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(2 * MOST_BYTES)
    with pytest.raises(UsageError, match="has 100 MB, expected at most 50 MB"):
        read_table(huge, KNOWN)


@pytest.mark.parametrize(
    "text",
    [
        '{"dataset": "ade20k", "backbone": "vit_b", "miou": 48.1}\n',
        '[{"dataset": "ade20k", "backbone": "vit_b", "miou": 48.1}]',
        '{"schema": 1, "evidence": [{"dataset": "ade20k", "backbone": "vit_b", "miou": 48.1}]}',
    ],
)
def test_json(tmp_path: Path, text: str) -> None:
    (found,) = read_table(written(tmp_path, text), KNOWN).records
    assert (found.cells, found.reason) == (EXPECTED.cells, "")


def test_bad_json_lines(tmp_path: Path) -> None:
    lines = ['{"backbone": null, "miou": 48}', "nonsense", "[1]", '{"backbone": {"a": 1}}', '{"miou": true}']
    found = read_table(written(tmp_path, "\n".join(lines)), KNOWN).records
    assert found[0].cells == {"backbone": "", "miou": "48"}
    assert [record.reason.split(":")[0] for record in found[1:]] == [
        "is not valid JSON",
        "is list in JSON, expected an object with the columns as keys",
        'backbone is {"a"',
        "miou is true, expected text or a number",
    ]
