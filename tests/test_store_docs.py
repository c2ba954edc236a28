"""docs/reference/store.md names what the schema has, and its statements run."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from run_samples import evaluation, record
from store_samples import profile

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.store import database
from luma_cli.store.inspection import EXAMPLE, TABLES, query
from luma_cli.store.profiles import VIEWS, columns_of, save
from luma_cli.store.runs import save_evaluation, start_run

ROOT = Path(__file__).parent.parent
DOCS = (ROOT / "docs" / "reference" / "store.md").read_text(encoding="utf-8")


def test_every_table_view_and_column_is_documented():
    with closing(database.open_write()) as db:
        save(db, profile())
        assert set(db.table_names()) == set(TABLES)
        assert set(db.view_names()) == set(VIEWS)
        named = {*TABLES, *VIEWS, *(column for view in VIEWS for column in columns_of(db.conn, view))}
    assert {name for name in named if f"`{name}`" not in DOCS} == set()


@pytest.mark.parametrize("statement", re.findall(r'luma db query "(.*?)"', f"{DOCS} {EXAMPLE}"))
def test_documented_queries_run(statement):
    with closing(database.open_write()) as db:
        save(db, profile(timm_name="test_vit.r160_in1k", resolution=64, head=HeadConfig(num_queries=8)))
        start_run(db, record())
        save_evaluation(db, evaluation(classes=evaluation().classes[:1]))
    with query(statement) as answer:
        assert len(list(answer.rows)) == 1


def test_the_benchmark_runs():
    command = [sys.executable, ROOT / "benchmarks" / "store.py", "--profiles", "400"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["database", "one device", "every device"]
    assert "for 49 rows" in lines[1]
