"""What decides whether two heads are the same: rows of before an option existed stay found, two heads never mix."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from advise_world import measured as row
from store_samples import profile, select

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.speed.bench import bench_of
from luma_cli.store import database
from luma_cli.store.database import migrate, migrations
from luma_cli.store.inspection import check
from luma_cli.store.profiles import measurements, save
from luma_cli.store.records import Configuration, Environment, Profile
from luma_cli.store.rows import UNKNOWN, profile_rows

HEADS = [
    HeadConfig(),
    HeadConfig(l2=2),
    HeadConfig(tap="input"),
    HeadConfig(prefix=True),
    HeadConfig(ffn="fresh"),
    HeadConfig(name="eomt"),
    HeadConfig(name="eomt", l2=2),
    HeadConfig(name="linear"),
]


@pytest.mark.parametrize(
    ("head", "fingerprint", "configuration", "attempt"),
    [
        (
            HeadConfig(),
            "0608fcb659496c92f4c7064cd3ec22e30c071a6748e3359ef787f978c92fe4a0",
            "a164b98020cdc98547127a3f04779ed40e78e9c142ffce9218f634e8b7e1a6a5",
            "407ba921e0937addf1d081ea34a4efdf04c08b832afa53dda2945d6a8efb6461",
        ),
        (
            HeadConfig(num_queries=50, num_classes=19, ffn="fresh"),
            "ea8501678a0fd73145a2f6b5dfab16fc0f0730478e354355ffbd3d736c404dab",
            "ef1f7afeb9c651863ecbc4c59a2c3bb959d0b897876c44f063212788d7f1a71e",
            "4ea3bd714fd603271a6a86ae6c1e6dc6d43a9a6d94e3b57330121e4cb4c8c2f0",
        ),
    ],
)
def test_hashes_are_those_of_the_first_release(head, fingerprint, configuration, attempt):
    kept = Profile(
        Configuration("vit_b", "vit_base_patch16_224", 512, head), Environment({"device_name": "Test"}), "ok"
    )
    found = profile_rows(kept, UNKNOWN, 0.0)
    assert (kept.fingerprint, found.parents["configuration"]["hash"], found.attempt["hash"]) == (
        fingerprint,
        configuration,
        attempt,
    )


def test_every_option_makes_another_head():
    prints = {Configuration("a", "a", 64, head).identity().__repr__() for head in HEADS}
    assert len(prints) == len(HEADS)


def first_schema(file: Path, kept: list[Profile]) -> None:
    """A database as the first release left it: schema 1 with these profiles."""
    current = file.with_name("current.db")
    with closing(database.open_write(current)) as db:
        for one in kept:
            save(db, one)
    with closing(sqlite3.connect(file, isolation_level=None)) as old:
        migrate(old, migrations()[:1])
        old.execute("ATTACH ? AS current", [str(current)])
        for table in ("environment", "provenance", "configuration", "attempt", "detail", "metric", "sample"):
            columns = ", ".join(name for _, name, *_ in old.execute(f"PRAGMA main.table_info({table})"))
            old.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM current.{table}")
        assert old.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_database_of_the_first_release_is_migrated_and_sound(tmp_path):
    kept = [profile(), profile(resolution=224)]
    first_schema(tmp_path / "luma.db", kept)
    with closing(database.open_write(tmp_path / "luma.db")) as db:
        assert {one.fingerprint for one in select(db.conn)} == {one.fingerprint for one in kept}
        columns = "head, l2, l2_requested, tap_requested, ffn_requested, prefix"
        assert set(db.execute(f"SELECT {columns} FROM profiles").fetchall()) == {("luma", 1, 1, "output", "auto", 0)}
    assert check(tmp_path / "luma.db").problems == ()


def test_the_views_say_each_head(tmp_path):
    with closing(database.open_write(tmp_path / "luma.db")) as db:
        for head in HEADS:
            facts = {"macs": 1, "l2": 3} if head.name == "eomt" and not head.l2 else {"macs": 1, "l2": head.l2}
            save(db, profile(head=head, facts=facts))
        columns = "head, l2, l2_requested, tap_requested, ffn_requested, prefix"
        found = set(db.execute(f"SELECT {columns} FROM profiles").fetchall())
    assert ("eomt", 3, 0, "output", "auto", 0) in found
    assert ("luma", 1, 1, "output", "auto", 1) in found
    assert len(found) == len(HEADS)


def test_rows_of_two_heads_never_share_conditions(tmp_path):
    with closing(database.open_write(tmp_path / "luma.db")) as db:
        for head in HEADS:
            save(db, profile(head=head, batch=0))
        rows = measurements(db.conn)
    assert len({one.conditions for one in rows}) == len(HEADS)
    assert {one.conditions.label.split(", ")[5] for one in rows} >= {
        "head luma", "head luma 2 blocks", "head luma tap input", "head eomt", "head linear",
    }  # fmt: skip
    for name in ("luma", "eomt", "linear"):
        assert bench_of(rows, head=name).conditions.head == name


def test_the_rows_of_the_head_that_is_asked_for_answer():
    luma = row("vit_s", latency_ms=5.0)
    assert bench_of([luma]).rows == (luma,)
    other = replace(luma, conditions=replace(luma.conditions, head="eomt"))
    assert bench_of([luma, other], head="eomt").rows == (other,)
