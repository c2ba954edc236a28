"""What a recommendation reads is what the profiles say."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from operator import attrgetter

import pytest
from store_samples import metric, profile, select

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.store import database
from luma_cli.store.profiles import Conditions, Measured, measurements, save
from luma_cli.store.rows import canonical


@pytest.fixture
def db():
    with closing(database.open_write()) as opened:
        yield opened


def expected(kept) -> Measured:
    """The same numbers by way of the Profile."""
    chosen, metrics = kept.configuration, kept.metrics

    def number(name: str) -> float | None:
        return metrics[name].median if name in metrics else None

    device = chosen.device
    noisy = {"latency": "latency_eager", "throughput": "throughput", "energy": "energy"}
    return Measured(
        name=chosen.backbone,
        timm_name=chosen.timm_name,
        resolution=chosen.resolution,
        conditions=Conditions(
            device=device.split(":")[0],
            device_name=kept.environment.identity["device_name"],
            dtype=chosen.dtype,
            attention=chosen.attention,
            compile=chosen.compile,
            channels_last=chosen.channels_last,
            head=chosen.head.name,
            num_queries=chosen.head.num_queries,
            num_classes=chosen.head.num_classes,
            l2=chosen.head.l2,
            tap=chosen.head.tap,
            ffn=chosen.head.ffn,
            prefix=chosen.head.prefix,
            design=json.dumps(
                [
                    chosen.head.variant,
                    chosen.head.mask_stride,
                    int(chosen.head.layer_scale),
                    int(chosen.head.qkv_bias),
                    chosen.head.read_norm,
                    int(chosen.head.query_norm),
                ],
                separators=(",", ":"),
            ),
            environment=canonical(kept.environment.identity, "identity"),
        ),
        family=chosen.family,
        pretraining=chosen.pretraining,
        macs=kept.facts.get("macs") if kept.facts.get("flops_complete", True) else None,
        params=kept.facts.get("params"),
        latency_ms=number("latency_eager"),
        images_per_second=number("throughput") if chosen.batch == 0 else None,
        memory_bytes=number("memory_device") or (number("memory_allocated") if device.startswith("cpu") else None),
        energy_joules=number("energy"),
        noisy=tuple(name for name, metric in noisy.items() if metric in metrics and metrics[metric].noisy),
        flags=tuple(name for name in ("throttled", "shared") if kept.notes.get(name)),
        own_module=bool(chosen.backbone_hash),
        started_at=kept.started_at,
        fingerprint=kept.fingerprint,
    )


KEPT = [
    profile(),
    profile(resolution=224, batch=8, dtype="bfloat16", compile="default", channels_last="on", attention="flash"),
    profile(resolution=384, notes={"throttled": True, "shared": False}, device_name="NVIDIA A100"),
    profile(resolution=640, notes={"shared": True}, backbone_hash="ab" * 32, device="cuda"),
    profile(resolution=768, facts={"macs": 5, "flops_complete": False}, metrics={"energy": metric("energy")}),
    profile(resolution=800, metrics={"memory_allocated": metric("memory_allocated")}),
    profile(resolution=832, metrics={"memory_allocated": metric("memory_allocated")}, device="cuda:1"),
    profile(resolution=1024, facts={}, metrics={}, head=HeadConfig(num_classes=19, num_queries=200)),
]


def test_each_number_is_the_profiles(db):
    for kept in KEPT:
        save(db, kept)
    by_fingerprint = attrgetter("fingerprint")
    found = sorted(measurements(db.conn), key=by_fingerprint)
    assert found == sorted(map(expected, select(db.conn)), key=by_fingerprint)
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
