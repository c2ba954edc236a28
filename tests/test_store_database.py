"""Where the database is, and every file that is not one: missing, foreign, cut off, newer, older, read-only."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import profile, select

from luma_cli import files
from luma_cli.errors import StoreError
from luma_cli.store import database
from luma_cli.store.database import StoreWarning, migrations
from luma_cli.store.inspection import check
from luma_cli.store.profiles import save

OPENERS = {"read": database.open_read, "write": database.open_write}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small database with two profiles in it, closed."""
    file = tmp_path / "luma.db"
    with closing(database.open_write(file)) as db:
        save(db, profile())
        save(db, profile(resolution=224))
    return file


def refused(file: Path, message: str) -> None:
    """Both ways of opening refuse `file` with `message` in one line that names it, and leave it as it is."""
    before = file.read_bytes()
    for opener in OPENERS.values():
        with pytest.raises(StoreError, match=message) as caught:
            opener(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert file.read_bytes() == before


def test_path_is_given_else_the_variable_else_the_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LUMA_DB", str(tmp_path / "env.db"))
    assert database.path(tmp_path / "given.db") == tmp_path / "given.db"
    assert database.path() == tmp_path / "env.db"
    monkeypatch.setenv("LUMA_DB", "~/mine.db")
    assert database.path() == Path(os.environ["HOME"]) / "mine.db"
    monkeypatch.delenv("LUMA_DB")
    assert database.path().name == "luma.db"
    assert Path(os.environ["HOME"]) in database.path().parents


def test_path_needs_no_home(monkeypatch):
    for variable in ("HOME", "XDG_DATA_HOME", "LUMA_DB"):
        monkeypatch.delenv(variable)
    assert database.path().is_absolute()


def test_writing_makes_the_folder_and_a_marked_wal_file(tmp_path):
    file = tmp_path / "new" / "folder" / "luma.db"
    with closing(database.open_write(file)) as db:
        assert db.journal_mode == "wal"
        names = ("foreign_keys", "synchronous", "busy_timeout", "application_id")
        pragmas = [db.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
    assert pragmas == [1, 2, 30_000, database.APPLICATION_ID]
    assert database.verify(file) == len(migrations())
    assert [child.name for child in file.parent.iterdir()] == ["luma.db"]


@pytest.mark.parametrize("name", ["wei rd#?%41&mode=rwc.db", "zażółć 日本.db", "a'b\"c;.db"])
def test_any_file_name_works(tmp_path, name):
    with closing(database.open_write(tmp_path / name)) as db:
        save(db, profile())
        assert database.file_of(db.conn) == tmp_path / name
    assert [child.name for child in tmp_path.iterdir()] == [name]
    with closing(database.open_read(tmp_path / name)) as connection:
        assert len(select(connection)) == 1


def test_reading_cannot_write(file):
    with closing(database.open_read(file)) as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM attempt")


def test_reading_needs_neither_sqlite_utils_nor_torch(file):
    code = (
        "import sys; from luma_cli.store.database import open_read; from luma_cli.store.profiles import select_rows\n"
        "assert len(select_rows(open_read(sys.argv[1]), ['macs'])) == 2\n"
        "print([name for name in ('sqlite_utils', 'pandas', 'torch', 'timm', 'scipy', 'numpy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(file)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("part", range(50))
def test_a_file_cut_off_anywhere_is_refused_and_left_alone(file, part):
    length = file.stat().st_size
    os.truncate(file, length * part // 50 if part else 0)
    refused(file, "cut off|is empty|not a luma database")


def test_a_file_that_lacks_its_last_byte_is_refused(file):
    os.truncate(file, file.stat().st_size - 1)
    refused(file, "is cut off")


@pytest.mark.parametrize("bytes_", [b"x", b"PK\3\4" * 1000, b"SQLite format 2\0" * 100, b"\0" * 5000])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, bytes_):
    (tmp_path / "x.db").write_bytes(bytes_)
    refused(tmp_path / "x.db", "is not a luma database")


def test_a_database_of_another_program_is_refused_and_left_alone(tmp_path):
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE attempt (hash)")
    refused(tmp_path / "x.db", "is an SQLite database of another program")


def test_a_folder_is_refused(tmp_path):
    for opener in OPENERS.values():
        with pytest.raises(StoreError, match="is a folder"):
            opener(tmp_path)


@pytest.mark.parametrize("in_log", [False, True])
def test_a_newer_schema_is_refused_and_left_alone(file, in_log):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 99")
        if in_log:  # the main file still says ours
            assert database.verify(file) == len(migrations())
            log = database.log_of(file).read_bytes()
            refused(file, f"has schema 99, this luma knows {len(migrations())}.*pip install -U luma-seg")
            assert database.log_of(file).read_bytes() == log
    refused(file, "has schema 99")


def steps(folder: Path, *texts: str) -> list[Path]:
    """The migrations that ship and further ones with these texts."""
    shipped = migrations()
    for number, text in enumerate(texts, start=len(shipped) + 1):
        (folder / f"{number:03d}_more.sql").write_text(text)
    return [*shipped, *sorted(folder.glob("*_more.sql"))]


def test_an_older_schema_is_migrated_once_and_the_data_stay(file, tmp_path):
    before = select_all(file)
    more = steps(tmp_path, "ALTER TABLE attempt ADD COLUMN colour TEXT;\nUPDATE attempt SET colour = 'a;b';\n")
    for _ in range(2):
        with closing(database.open_write(file, steps=more)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (len(migrations()) + 1,)
            assert db.execute("SELECT DISTINCT colour FROM attempt").fetchall() == [("a;b",)]
            assert select(db.conn, samples=True) == before


@pytest.mark.parametrize("fault", ["SELECT nonsense;", "INSERT INTO attempt (attempt_id) VALUES (1);", "SELECT 1"])
def test_a_migration_that_fails_changes_nothing(file, tmp_path, fault):
    before = file.read_bytes()
    half = f"CREATE TABLE half (x) STRICT;\nDELETE FROM metric;\n{fault}"
    with pytest.raises(StoreError):
        database.open_write(file, steps=steps(tmp_path, half.replace("half (x)", "half (x TEXT)")))
    assert file.read_bytes() == before
    assert check(file).problems == ()
    assert check(file).schema == len(migrations())


def test_a_failed_first_creation_leaves_nothing(tmp_path):
    (tmp_path / "db").mkdir()
    broken = tmp_path / "db" / "001_broken.sql"
    broken.write_text("CREATE TABLE t (x TEXT) STRICT; CREATE TABLE t (x TEXT) STRICT;")
    with pytest.raises(StoreError, match="table t already exists"):
        database.open_write(tmp_path / "x.db", steps=[broken])
    assert [child.name for child in tmp_path.iterdir()] == ["db"]


def test_reading_an_older_schema_migrates_it_first(file, tmp_path, monkeypatch):
    more = steps(tmp_path, "CREATE VIEW marker AS SELECT 7 AS x;")
    monkeypatch.setattr("luma_cli.store.database.migrations", lambda: more)
    with closing(database.open_read(file)) as connection:
        assert connection.execute("SELECT x FROM marker").fetchone() == (7,)


def test_shipped_migrations_are_numbered_and_every_table_is_strict(file):
    assert [step.parent for step in migrations()] == [files.root() / "db"] * len(migrations())
    with closing(database.open_read(file)) as connection:
        tables = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
    assert tables
    assert all("STRICT" in sql.rsplit(")", 1)[1] for _, sql in tables), tables


@pytest.mark.parametrize("names", [[], ["002_b.sql"], ["001_a.sql", "003_c.sql"], ["001_a.sql", "001_b.sql"]])
def test_migrations_out_of_order_are_refused(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(StoreError, match="expected 001_, 002_"):
        migrations(tmp_path)


def select_all(file: Path) -> list:
    with closing(database.open_read(file)) as connection:
        return select(connection, samples=True)


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder, and a call after which nothing in it can be written, not even by root."""
    folder = tmp_path / "sealed"
    folder.mkdir()
    if os.geteuid() != 0:
        yield folder, lambda: folder.chmod(0o555)
        folder.chmod(0o755)
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]).returncode != 0:
        pytest.skip("root may write everywhere and cannot mount here")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", folder], check=True) and None
    subprocess.run(["umount", folder], check=True)


def test_a_read_only_folder_can_be_read_and_says_how_to_write_elsewhere(sealed):
    folder, seal = sealed
    with closing(database.open_write(folder / "luma.db")) as db:
        save(db, profile())
    seal()
    assert select_all(folder / "luma.db") == [profile()]
    assert check(folder / "luma.db").problems == ()
    for name in ("luma.db", "new.db"):
        with pytest.raises(StoreError, match=rf"{name} can.*--db FILE or LUMA_DB"):
            database.open_write(folder / name)
    assert database.open_read(folder / "new.db") is None


def test_a_read_only_folder_with_an_unread_log_says_so(sealed):
    folder, seal = sealed
    file = folder / "luma.db"
    with closing(database.open_write(file)) as db:
        save(db, profile())
        parts = {part: part.read_bytes() for part in (file, database.log_of(file))}
    for part, content_ in parts.items():
        part.write_bytes(content_)
    seal()
    with pytest.raises(StoreError, match=r"luma\.db cannot be opened"):
        database.open_read(file)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/luma\.db cannot be used.*--db FILE or LUMA_DB"):
        database.open_write(tmp_path / "file" / "luma.db")


@pytest.fixture
def no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite on a file system without shared memory, as a network one: a VFS of SQLite's own that lacks it."""
    connect = database.connect
    monkeypatch.setattr(database, "connect", lambda file, mode, **more: connect(file, mode, vfs="unix-dotfile", **more))


def test_refused_wal_works_with_a_rollback_journal_and_says_so_once(tmp_path, no_shared_memory):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for resolution in (224, 512):
            with closing(database.open_write(tmp_path / "x.db")) as db:
                assert db.journal_mode == "delete"
                save(db, profile(resolution=resolution))
    assert [warning.category for warning in caught] == [StoreWarning]
    assert "write-ahead logging is refused here, using a delete journal" in str(caught[0].message)
    assert len(select_all(tmp_path / "x.db")) == 2
    assert check(tmp_path / "x.db").problems == ()


def test_a_wal_file_moved_to_where_wal_is_refused_says_so(file, no_shared_memory):
    for opener in OPENERS.values():
        with pytest.raises(StoreError, match="cannot be opened"):
            opener(file)


@pytest.mark.parametrize("way", OPENERS)
def test_half_a_transaction_of_a_writer_that_died_is_undone(file, tmp_path, way):
    before, crashed = select_all(file), tmp_path / "crashed.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA cache_size = 1", "BEGIN IMMEDIATE"):
            writer.execute(statement)
        for table, column in (("attempt", "reason"), ("configuration", "tag"), ("configuration", "weights")):
            writer.execute(f"UPDATE {table} SET {column} = hex(zeroblob(20000))")
        for suffix in ("", "-journal"):  # what a crash at this moment leaves
            Path(f"{crashed}{suffix}").write_bytes(Path(f"{file}{suffix}").read_bytes())
    assert crashed.read_bytes() != file.read_bytes()
    with closing(OPENERS[way](crashed)) as opened:
        assert opened.execute("SELECT max(length(tag)) FROM configuration").fetchone() == (0,)
    assert select_all(crashed) == before


def test_another_writer_that_never_ends_is_named(file, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(file, isolation_level=None)) as other, closing(database.open_write(file)) as db:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is held by another process"):
            save(db, profile(resolution=64))
        other.rollback()
        save(db, profile(resolution=64))
        assert len(select(db.conn)) == 3
