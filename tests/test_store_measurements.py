"""What a recommendation reads is what the profiles say."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest
from store_samples import metric, profile, select

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.store import database
from luma_cli.store.profiles import Measurement, measurements, save
from luma_cli.store.rows import canonical


@pytest.fixture
def db():
    with closing(database.open_write()) as opened:
        yield opened


def expected(kept) -> Measurement:
    """The same numbers by way of the Profile."""
    chosen, metrics = kept.configuration, kept.metrics

    def number(name: str) -> float | None:
        return metrics[name].median if name in metrics else None

    def noisy(name: str) -> int | None:
        return int(metrics[name].noisy) if name in metrics else None

    return Measurement(
        fingerprint=kept.fingerprint,
        started_at=kept.started_at,
        backbone=chosen.backbone,
        timm_name=chosen.timm_name,
        family=chosen.family,
        pretraining=chosen.pretraining,
        own_module=bool(chosen.backbone_hash),
        resolution=chosen.resolution,
        head=chosen.head.name,
        queries=chosen.head.num_queries,
        classes=chosen.head.num_classes,
        l2=chosen.head.l2,
        tap=chosen.head.tap,
        ffn=chosen.head.ffn,
        prefix=chosen.head.prefix,
        device=chosen.device,
        identity=canonical(kept.environment.identity, "identity"),
        device_name=kept.environment.identity["device_name"],
        dtype=chosen.dtype,
        attention=chosen.attention,
        compile=chosen.compile,
        channels_last=chosen.channels_last,
        batch_requested=chosen.batch,
        macs=kept.facts.get("macs"),
        macs_complete=kept.facts.get("flops_complete", True),
        params=kept.facts.get("params"),
        latency_ms=number("latency_eager"),
        latency_noisy=noisy("latency_eager"),
        images_per_second=number("throughput"),
        images_per_second_noisy=noisy("throughput"),
        energy_joules=number("energy"),
        energy_noisy=noisy("energy"),
        memory_device_bytes=number("memory_device"),
        memory_allocated_bytes=number("memory_allocated"),
        throttled=bool(kept.notes.get("throttled")),
        shared=bool(kept.notes.get("shared")),
    )


KEPT = [
    profile(),
    profile(resolution=224, batch=8, dtype="bfloat16", compile="default", channels_last="on", attention="flash"),
    profile(resolution=384, notes={"throttled": True, "shared": False}, device_name="NVIDIA A100"),
    profile(resolution=640, notes={"shared": True}, backbone_hash="ab" * 32, device="cuda"),
    profile(resolution=768, facts={"macs": 5, "flops_complete": False}, metrics={"energy": metric("energy")}),
    profile(resolution=1024, facts={}, metrics={}, head=HeadConfig(num_classes=19, num_queries=200)),
]


def test_each_number_is_the_profiles(db):
    for kept in KEPT:
        save(db, kept)
    assert sorted(measurements(db.conn)) == sorted(map(expected, select(db.conn)))
    assert len(measurements(db.conn)) == len(KEPT)


def test_only_whole_segmenters_with_the_head_that_ended_well(db):
    for other in (
        profile(status="oom"),
        profile(part="backbone"),
        profile(head=HeadConfig(name="none")),
    ):
        save(db, other)
    assert measurements(db.conn) == []


def test_the_latest_attempt_decides(db):
    save(db, profile())
    save(db, replace(profile(status="crashed"), started_at="2026-11-22T00:00:00+00:00"))
    assert measurements(db.conn) == []


def test_one_device(db):
    for kept in KEPT:
        save(db, kept)
    assert [m.resolution for m in measurements(db.conn, "NVIDIA A100")] == [384]
    assert measurements(db.conn, "' OR 1=1 --") == []


def test_no_database_has_no_measurements():
    assert measurements(database.open_read()) == []
