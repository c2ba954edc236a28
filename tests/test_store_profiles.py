"""What is saved comes back exactly, under the right name, and in the right order."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import NAN_PLACES, environment, metric, profile, profiles, select

from luma_cli.errors import StoreError, UsageError
from luma_cli.store import database
from luma_cli.store.profiles import ProfileStore, columns_of, latest, save, select_rows
from luma_cli.store.records import Configuration
from luma_cli.store.rows import Origin


@pytest.fixture
def db() -> Iterator[object]:
    with closing(database.open_write()) as opened:
        yield opened


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=profiles())
def test_round_trip_is_exact(db, kept):
    assert save(db, kept) == kept
    found = latest(db.conn, [kept.fingerprint], samples=True)
    assert kept in [found[kept.fingerprint], *select(db.conn, view="attempts", samples=True)]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_outside_text_is_stored_verbatim_and_never_runs(db, text):
    schema = db.schema
    kept = profile(backbone=text, timm_name=text, tag=text, weights=text, reason=text, notes={text: text})
    save(db, kept, Origin(plan=text, device_uuid=text))
    where = {"backbone": text, "tag": text, "weights": text, "plan": text, "device_uuid": text or "GPU-1"}
    assert select(db.conn, **where) == [without_samples(kept)]
    assert db.schema == schema


def test_bytes_that_are_no_text_do_not_stop_a_save(db):
    kept = profile(tag="caf\udce9", reason="cannot read caf\udce9")
    save(db, kept)
    (found,) = select(db.conn)
    assert found.configuration == kept.configuration
    assert found.reason == "cannot read caf\\udce9"
    assert select_rows(db.conn, ["tag"]) == [("caf\\udce9",)]


def test_samples_come_only_when_asked_for(db):
    kept = profile()
    save(db, kept)
    assert select(db.conn) == [without_samples(kept)]
    assert select(db.conn, samples=True) == [kept]


def test_saving_the_same_twice_changes_nothing(db):
    kept = profile()
    save(db, kept)
    before = dump(db)
    save(db, kept)
    assert dump(db) == before


def test_equal_places_and_configurations_share_their_rows(db):
    for second in range(5):
        save(db, profile(started_at=f"2026-11-21T10:00:0{second}+00:00"))
    counts = [db[table].count for table in ("attempt", "configuration", "environment", "provenance")]
    assert counts == [5, 1, 1, 1]


def test_latest_is_by_time_whatever_the_zone_and_the_order_of_saving(db):
    first, second = profile(started_at="2026-11-21T12:00:00+02:00"), profile(started_at="2026-11-21T10:30:00Z")
    save(db, second)
    save(db, first)
    assert latest(db.conn, [first.fingerprint])[first.fingerprint] == without_samples(second)
    assert select(db.conn) == [without_samples(second)]
    assert select(db.conn, view="attempts") == [without_samples(first), without_samples(second)]


def test_without_a_start_time_the_last_saved_is_the_latest(db):
    for second, status in enumerate(["crashed", "ok", "timeout"]):
        save(db, profile(started_at="", status=status), now=lambda second=second: 1000.0 + second)
    assert [found.status for found in select(db.conn)] == ["timeout"]


def test_a_tag_or_alias_does_not_make_it_another_measurement(db):
    save(db, profile(tag="mine", backbone="vit_b", started_at="2026-01-01T00:00:00Z"))
    save(db, profile(tag="", backbone="vit_base_patch16_224", started_at="2026-01-02T00:00:00Z"))
    assert [found.configuration.backbone for found in select(db.conn)] == ["vit_base_patch16_224"]


def test_another_driver_makes_it_another_measurement(db):
    save(db, profile())
    save(db, replace(profile(), environment=environment(driver="999")))
    assert len(select(db.conn)) == 2


def test_latest_of_many_and_of_unknown_fingerprints(db):
    kept = [profile(resolution=32 * step) for step in range(1, 40)]
    for one in kept:
        save(db, one)
    found = latest(db.conn, [*(one.fingerprint for one in kept), "0" * 64])
    assert found == {one.fingerprint: without_samples(one) for one in kept}


def test_select_filters_by_any_column_and_by_several_values(db):
    for resolution in (224, 512, 1024):
        save(db, profile(resolution=resolution))
    found = [p.configuration.resolution for p in select(db.conn, resolution_pixels=[224, 1024])]
    assert sorted(found) == [224, 1024]  # rows of one time come in no order of their own
    assert select(db.conn, resolution_pixels=512, status="oom") == []
    assert select(db.conn, plan="", device_index=None, resolution_pixels=()) == []
    assert len(select(db.conn, device_name="NVIDIA H200", head="luma")) == 3


@pytest.mark.parametrize("column", ["miou", "1=1 OR backbone", "backbone; DROP TABLE attempt", ""])
def test_a_column_that_is_not_ours_is_refused(db, column):
    with pytest.raises(UsageError, match="no column"):
        select_rows(db.conn, [column])
    with pytest.raises(UsageError, match="no column"):
        select(db.conn, **{column: 1})


def test_a_view_that_is_not_ours_is_refused(db):
    with pytest.raises(UsageError, match="no view 'attempt'"):
        select(db.conn, view="attempt")


def test_no_database_is_an_empty_one(tmp_path):
    connection = database.open_read(tmp_path / "none.db")
    assert connection is None
    assert (latest(connection, ["0" * 64]), select(connection), select_rows(connection, ["gmacs"])) == ({}, [], [])
    assert list(tmp_path.iterdir()) == []


def test_view_holds_the_numbers_in_the_units_of_its_names(db):
    save(db, profile())
    row = dict(zip(names := columns_of(db.conn, "profiles"), select_rows(db.conn, names)[0], strict=True))
    expected = {
        "gmacs": 107.03,
        "head_gmacs": 15.6,
        "params": 95_000_000,
        "throughput_images_per_second": 512.5,
        "throughput_ci_low_images_per_second": 510.0,
        "throughput_ci_high_images_per_second": 515.0,
        "latency_eager_p50_ms": 7.5,
        "latency_eager_p90_ms": 8.25,
        "memory_allocated_bytes": 1e9,
        "memory_device_plateau_bytes": 9e9,
        "energy_j_per_image": 0.75,
        "latency_cuda_graph_p50_ms": None,
        "device_uuid": "GPU-1",
        "energy_noisy": 1,
        "throughput_noisy": 0,
        "throttled": None,
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", NAN_PLACES)
def test_a_number_that_is_not_finite_fails_the_profile_with_the_reason(db, place, value):
    broken = NAN_PLACES[place](value)
    kept = save(db, broken)
    assert (kept.status, kept.reason) == ("failed", f"{place} is not a finite number")
    assert select(db.conn, samples=True, status="failed") == [kept]
    assert select_rows(db.conn, ["throughput_images_per_second"]) in ([(512.5,)], [(None,)])


def test_a_number_that_is_not_finite_in_a_note_is_a_remark(db):
    kept = save(db, profile(notes={"trace": [1.0, math.nan], "deep": {"x": math.inf}}))
    expected = {"trace": [1.0, None], "deep": {"x": None}, "not_finite": ["notes.trace.1", "notes.deep.x"]}
    assert (kept.status, kept.notes) == ("ok", expected)
    assert select(db.conn, samples=True) == [kept]


def test_an_attempt_that_failed_already_keeps_its_status(db):
    broken = replace(NAN_PLACES["seconds"](math.nan), status="timeout", reason="killed after 60 s")
    kept = save(db, broken)
    assert (kept.status, kept.reason) == ("timeout", "killed after 60 s; seconds is not a finite number")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (profile(facts={"macs": "107"}), "fact macs is '107', expected a whole number"),
        (profile(facts={"macs": 2**70}), "too large for the database"),
        (profile(notes={"path": Path("x")}), "notes cannot be kept"),
        (profile(metrics={"throughput": metric("latency_eager")}), "filed under 'throughput'"),
        (profile(metrics={"latency_eager": replace(metric("latency_eager"), unit="s")}), "in 's', expected ms"),
        (profile(status="splendid"), "CHECK constraint failed"),
    ],
)
def test_what_cannot_be_kept_is_refused_whole(db, broken, message):
    with pytest.raises(StoreError, match=message):
        save(db, broken)
    assert all(table.count == 0 for table in db.tables)
    save(db, profile())
    assert len(select(db.conn)) == 1


def test_a_configuration_of_the_future_is_named_not_guessed(db):
    save(db, profile())
    values = json.loads(db.execute("SELECT json FROM configuration").fetchone()[0])
    db.execute("UPDATE configuration SET json = ?", [json.dumps({**values, "warp": 9})])
    with pytest.raises(StoreError, match="warp"):
        select(db.conn)


def test_a_sweep_writes_and_reads_through_one_object(db):
    store = ProfileStore(db, Origin(plan="nightly", device_index=3))
    kept = store.save(profile())
    assert store.latest([kept.fingerprint]) == {kept.fingerprint: without_samples(kept)}
    assert select_rows(db.conn, ["plan", "device_index", "device_uuid"]) == [("nightly", 3, "GPU-1")]


def test_default_configuration_is_kept(db):
    kept = replace(profile(), configuration=Configuration("test_vit", "test_vit", 64), metrics={}, facts={}, notes={})
    assert save(db, kept) == kept
    assert select(db.conn) == [kept]


def without_samples(kept):
    return replace(kept, metrics={name: replace(m, samples=()) for name, m in kept.metrics.items()})


def dump(db):
    return {table.name: list(table.rows) for table in db.tables}
