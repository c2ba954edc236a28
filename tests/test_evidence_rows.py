"""Imported results in the store: kept once, checked, merged in any order, exported."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from evidence_samples import row

from luma_cli.errors import StoreError
from luma_cli.evidence.evidence import COLUMNS as EVIDENCE_COLUMNS
from luma_cli.store.database import open_read, open_write
from luma_cli.store.evidence import COLUMNS, evidence_rows, remove_evidence, save_evidence
from luma_cli.store.inspection import check
from luma_cli.store.transfer import export, merge


def values(**fields: Any) -> dict[str, Any]:
    content = asdict(row(**fields))
    del content["id"]
    return content


def clock(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def test_the_store_keeps_every_column_of_the_table() -> None:
    assert tuple(name for name in EVIDENCE_COLUMNS if name != "id") == COLUMNS


def test_rows_are_kept_once_as_they_were() -> None:
    given = [values(), values(miou_percent=51.123456789012345, params_m=None, notes="Mühle \udcff"), values()]
    with closing(open_write()) as db:
        added = save_evidence(db, given, "a.csv")
        assert len(added) == 2
        assert save_evidence(db, given, "b.csv") == []
        found = {each["hash"]: each for each in evidence_rows(db.conn)}
        assert [found[each]["miou_percent"] for each in added] == [50.0, 51.123456789012345]
        assert found[added[1]]["notes"] == "Mühle \\udcff"
        assert remove_evidence(db, added[:1]) == 1
        assert [each["hash"] for each in evidence_rows(db.conn)] == added[1:]
    assert check().problems == ()


@pytest.mark.parametrize("bad", [{"miou_percent": float("nan")}, {"miou_percent": 120.0}, {"provenance": "rumour"}])
def test_one_bad_row_keeps_all_out(bad: dict[str, object]) -> None:
    with closing(open_write()) as db:
        with pytest.raises(StoreError):
            save_evidence(db, [values(), values(**bad)], "a.csv")
        assert evidence_rows(db.conn) == []


def test_a_changed_row_is_found() -> None:
    with closing(open_write()) as db:
        save_evidence(db, [values()], "a.csv")
        db.conn.execute("UPDATE evidence_row SET miou_percent = 60")
        db.conn.commit()
    assert check().problems == ("evidence_row 1 is not what its hash says",)


def test_merging_in_any_order_gives_the_same(tmp_path: Path) -> None:
    content = []
    for first, second in (("a", "b"), ("b", "a")):
        folder = tmp_path / first
        folder.mkdir()
        for name, seconds, miou in (("a", 5.0, 50.0), ("b", 3.0, 51.0)):
            with closing(open_write(folder / name)) as db:
                save_evidence(db, [values(), values(miou_percent=miou)], f"{name}.csv", now=clock(seconds))
        with closing(open_write(folder / first)) as db:
            assert merge(db, folder / second).evidence == (1 if first == "a" else 0)
            assert merge(db, folder / second).evidence == 0
        content.append(exported(folder / first))
    assert content[0] == content[1]
    assert {each["file"] for each in content[0]} == {"b.csv"}


def exported(file: Path) -> list[dict[str, object]]:
    stream = io.StringIO()
    connection = open_read(file)
    assert connection is not None
    with closing(connection):
        export(connection, stream, "json", "evidence")
    rows: list[dict[str, object]] = json.loads(stream.getvalue())["rows"]
    return rows
