"""Backup, merge, export, check, info and query."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import profile, select

from luma_cli.errors import StoreError, UsageError
from luma_cli.store import database
from luma_cli.store.database import migrations
from luma_cli.store.inspection import TABLES, check, info, query
from luma_cli.store.profiles import save
from luma_cli.store.rows import Origin
from luma_cli.store.transfer import backup, export, merge


def filled(file: Path, *profiles, plan: str = "") -> Path:
    with closing(database.open_write(file)) as db:
        for number, one in enumerate(profiles):
            save(db, one, Origin(plan), now=lambda number=number: 1000.0 + number)
    return file


def content(file: Path) -> list[object]:
    """All that is in a database but for its integer keys, in an order of its own."""
    with reading(file) as connection:
        kept = [(p.fingerprint, p) for p in select(connection, view="attempts", samples=True)]
        columns = "hash, started_unix_seconds, plan, device_uuid"
        return [kept, connection.execute(f"SELECT {columns} FROM attempts ORDER BY hash").fetchall()]


def reading(file: Path) -> closing[sqlite3.Connection]:
    connection = database.open_read(file)
    assert connection is not None
    return closing(connection)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Path]]:
    """Three files that share some attempts, one of them without a start time."""
    shared = profile(resolution=512)
    timeless = profile(resolution=640, started_at="")
    return [
        filled(tmp_path / "a.db", shared, profile(resolution=224), timeless),
        filled(tmp_path / "b.db", profile(resolution=768, device_name="NVIDIA A100"), timeless, shared, plan=""),
        filled(tmp_path / "c.db", profile(resolution=512, started_at="2026-11-22T00:00:00Z"), shared, plan="nightly"),
    ]


def test_merge_is_idempotent_and_free_of_order(three, tmp_path):
    results = []
    for number, order in enumerate([(0, 1, 2), (2, 1, 0), (1, 1, 2, 0, 2, 1)]):
        with closing(database.open_write(tmp_path / f"merged{number}.db")) as db:
            for index in order:
                merge(db, three[index])
        results.append(content(tmp_path / f"merged{number}.db"))
        assert check(tmp_path / f"merged{number}.db").problems == ()
    assert results[0] == results[1] == results[2]
    assert len(results[0][1]) == 6


def test_merge_counts_and_leaves_the_other_file_alone(three):
    before = three[1].read_bytes()
    with closing(database.open_write(three[0])) as db:
        assert (merge(db, three[1]).added, merge(db, three[1]).known) == (1, 3)
        assert "other" not in [row[1] for row in db.execute("PRAGMA database_list")]
    assert three[1].read_bytes() == before


def test_merged_attempts_share_what_is_equal(three, tmp_path):
    with closing(database.open_write(tmp_path / "m.db")) as db:
        for file in three:
            merge(db, file)
        assert (db["configuration"].count, db["environment"].count, db["provenance"].count) == (4, 2, 1)


def test_merge_refuses_itself_the_missing_and_the_foreign(three, tmp_path):
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE attempt (hash)")
    with closing(database.open_write(three[0])) as db:
        with pytest.raises(UsageError, match="is the database itself"):
            merge(db, three[0])
        with pytest.raises(StoreError, match=r"none\.db does not exist"):
            merge(db, tmp_path / "none.db")
        with pytest.raises(StoreError, match="of another program"):
            merge(db, foreign)
        assert db["attempt"].count == 3


FORGERIES = {
    "UPDATE attempt SET latency_eager_p50_ms = 1": "latency_eager_p50_ms of its attempt",
    "UPDATE metric SET median = 1e6 WHERE name = 'throughput'": "throughput_images_per_second, hash of its attempt",
    "UPDATE attempt SET macs = 1": "macs of its attempt",
    "UPDATE attempt SET fingerprint = hash": "fingerprint of its attempt",
    "UPDATE attempt SET status = 'oom'": "hash of its attempt",
    "UPDATE detail SET facts = '{\"macs\": 1}'": "macs, head_macs",
    "UPDATE detail SET notes = '{}'": "hash of its attempt",
    "UPDATE sample SET samples = zeroblob(8)": "hash of its attempt",
    "DELETE FROM sample": "hash of its attempt",
    "DELETE FROM detail": "has no detail",
    "UPDATE environment SET device_name = 'RTX'": "device_name of its environment",
    "UPDATE environment SET identity = '{}'": "environment 1 is not what its hash says",
    "UPDATE configuration SET resolution = 64": "resolution of its configuration",
    "UPDATE configuration SET json = '{}'": "configuration 1 is not what its hash says",
    "UPDATE provenance SET json = '{}'": "provenance 1 is not what its hash says",
    "INSERT INTO provenance VALUES (9, hex(zeroblob(32)), '{}')": "provenance 9 belongs to no attempt",
    "DROP VIEW profiles": "view profiles is not as luma makes it",
    "ALTER TABLE attempt ADD COLUMN colour TEXT": "table attempt is not as luma makes it",
    "DROP INDEX attempt_by_fingerprint": "index attempt_by_fingerprint is not as luma makes it",
    "PRAGMA foreign_keys = OFF; DELETE FROM environment": "points to no environment",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_check_names_what_was_changed_behind_our_back_and_merge_refuses_it(forgery, tmp_path):
    file = filled(tmp_path / "x.db", profile())
    assert check(file).problems == ()
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(forgery)
    found = check(file).problems
    assert any(FORGERIES[forgery] in problem for problem in found), found
    with closing(database.open_write(tmp_path / "ours.db")) as db:
        with pytest.raises(StoreError, match="is not sound"):
            merge(db, file)
        assert db["attempt"].count == 0


def test_check_reports_a_damaged_page(tmp_path):
    file = filled(tmp_path / "x.db", *(profile(resolution=32 * step) for step in range(1, 30)))
    with file.open("r+b") as opened:
        opened.seek(4096 * 30)
        opened.write(b"\xff" * 4096 * 3)
    assert check(file).problems != ()


def test_check_of_nothing_says_so(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        check(tmp_path / "none.db")


def test_backup_is_whole_while_a_writer_is_at_work(tmp_path):
    file = filled(tmp_path / "x.db", profile(), profile(resolution=224))
    with closing(database.open_write(file)) as db:
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE attempt SET reason = 'half way'")
        copy = backup(file, tmp_path / "copy.db")
        db.conn.rollback()
    assert content(copy) == content(file)
    assert check(copy).problems == ()
    assert sorted(tmp_path.glob(".*")) == []


def test_backup_replaces_a_file_only_when_asked(tmp_path):
    file = filled(tmp_path / "x.db", profile())
    target = tmp_path / "copy.db"
    target.write_text("precious")
    with pytest.raises(StoreError, match="exists already"):
        backup(file, target)
    assert target.read_text() == "precious"
    backup(file, target, overwrite=True)
    assert content(target) == content(file)
    with pytest.raises(StoreError, match="exists already"):
        backup(file, file, overwrite=True)


def test_backup_of_nothing_and_to_nowhere_says_so(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        backup(tmp_path / "none.db", tmp_path / "copy.db")
    file = filled(tmp_path / "x.db", profile())
    with pytest.raises(StoreError, match="cannot be used: No such file or directory"):
        backup(file, tmp_path / "no" / "such" / "copy.db")


def test_export_to_csv_and_json_says_the_same(tmp_path):
    file = filled(tmp_path / "x.db", profile(tag='say "hi", you\nthere'), profile(resolution=224, metrics={}))
    with reading(file) as connection:
        as_csv, as_json = io.StringIO(), io.StringIO()
        assert export(connection, as_csv) == export(connection, as_json, "json") == 2
    table = list(csv.DictReader(io.StringIO(as_csv.getvalue())))
    decoded = json.loads(as_json.getvalue())
    assert decoded["schema"] == 1
    assert [{name: "" if v is None else str(v) for name, v in row.items()} for row in decoded["rows"]] == table
    by_resolution = {row["resolution_pixels"]: row for row in decoded["rows"]}
    assert by_resolution[512]["throughput_images_per_second"] == 512.5
    assert by_resolution[224]["throughput_images_per_second"] is None
    assert "attempt_id" not in by_resolution[224]


def test_export_has_every_attempt_when_asked_and_the_same_text_each_time(three):
    with closing(database.open_write(three[0])) as db:
        merge(db, three[2])
        texts = []
        for _ in range(2):
            stream = io.StringIO()
            assert (export(db.conn, stream, view="attempts"), export(db.conn, io.StringIO())) == (5, 3)
            texts.append(stream.getvalue())
    assert texts[0] == texts[1]


def test_a_broken_pipe_is_not_blamed_on_the_database(tmp_path):
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    file = filled(tmp_path / "x.db", profile())
    with reading(file) as connection, pytest.raises(BrokenPipeError):
        export(connection, Closed())


def test_info_counts(three, tmp_path):
    with closing(database.open_write(three[0])) as db:
        merge(db, three[1])
        found = info(three[0])
    assert (found.file, found.schema, found.journal) == (three[0], len(migrations()), "wal")
    assert found.rows == dict(zip(TABLES, [4, 2, 1, 4, 4, 20, 20, 0, 0, 0, 0, 0, 0, 0, 0], strict=True))
    assert (found.by_status, found.by_device) == ({"ok": 4}, {"NVIDIA A100": 1, "NVIDIA H200": 3})
    assert found.bytes >= three[0].stat().st_size
    nothing = info(tmp_path / "none.db")
    assert (nothing.schema, nothing.bytes, set(nothing.rows.values())) == (0, 0, {0})
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("sql", "first"),
    [
        ("SELECT backbone, gmacs FROM profiles", ("vit_b", 107.03)),
        ("  -- a remark\n WITH x AS (SELECT 1 AS a) SELECT a, count(*) FROM x", (1, 1)),
        ("VALUES (1, 'a')", (1, "a")),
        ("SELECT name, median, unit FROM metrics WHERE name = 'energy';", ("energy", 0.75, "J")),
        ("PRAGMA user_version", (len(migrations()),)),
        ("SELECT upper(json_extract(identity, '$.driver')) FROM environment", ("570.1",)),
    ],
)
def test_query_reads(sql, first, tmp_path):
    with query(sql, filled(tmp_path / "x.db", profile())) as answer:
        assert next(answer.rows) == first
        assert len(answer.columns) == len(first)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM attempt",
        "WITH x AS (SELECT 1) DELETE FROM attempt",
        "SELECT 1; DELETE FROM attempt",
        "DROP VIEW profiles",
        "PRAGMA user_version = 7",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "ATTACH 'evil.db' AS evil",
        "VACUUM INTO 'evil.db'",
        "BEGIN IMMEDIATE",
        "SELECT load_extension('evil.so')",
        "CREATE TEMP TABLE t (x)",
        "SELECT nonsense FROM nowhere",
        "SELEKT",
        "",
        "-- only a remark",
        "SELECT '\0'",
    ],
)
def test_query_refuses_what_writes_or_does_not_parse(sql, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = filled(tmp_path / "x.db", profile())
    before = file.read_bytes()
    with pytest.raises(UsageError, match=r"luma db query"), query(sql, file) as answer:
        list(answer.rows)
    assert file.read_bytes() == before
    assert not Path("evil.db").exists()


def test_query_streams(tmp_path):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    with query(endless, filled(tmp_path / "x.db")) as answer:
        assert [next(answer.rows) for _ in range(3)] == [(1,), (2,), (3,)]


def test_ctrl_c_ends_a_long_query(tmp_path):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), query(endless, filled(tmp_path / "x.db")) as answer:
        list(answer.rows)
    timer.join()


def test_query_of_nothing_says_so(tmp_path):
    with pytest.raises(StoreError, match="does not exist"), query("SELECT 1", tmp_path / "none.db"):
        pass
