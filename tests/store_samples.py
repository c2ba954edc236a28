"""Profiles made up for the tests of the store, by hand and by hypothesis."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.store.profiles import load, select_rows
from luma_cli.store.records import Configuration, Environment, Metric, Profile

_NUMBERS = {
    "throughput": ("images/s", 512.5, 510.0, 515.0, None),
    "latency_eager": ("ms", 7.5, 7.4, 7.6, 8.25),
    "memory_allocated": ("bytes", 1e9, 1e9, 1e9, None),
    "memory_device_plateau": ("bytes", 9e9, 9e9, 9e9, None),
    "energy": ("J", 0.75, 0.7, 0.8, None),
}


def select(
    connection: sqlite3.Connection | None, *, view: str = "profiles", samples: bool = False, **where: Any
) -> list[Profile]:
    """Profiles whose columns of `view` equal the values in `where` (a list means any of them), oldest first."""
    keys = [key for (key,) in select_rows(connection, ["attempt_id"], view=view, **where)]
    return [] if connection is None else list(load(connection, keys, samples=samples).values())


def metric(name: str) -> Metric:
    unit, median, low, high, p90 = _NUMBERS[name]
    return Metric(name, unit, median, low, high, 3, p90, name == "energy", (low, median, high))


def environment(**identity: Any) -> Environment:
    known = {"device_name": "NVIDIA H200", "torch": "2.15.0", "timm": "1.0.31", "driver": "570.1", **identity}
    return Environment(known, {"gpu_uuid": "GPU-1", "host": "node7"})


def profile(
    *,
    status: Any = "ok",
    reason: str = "",
    metrics: dict[str, Metric] | None = None,
    facts: dict[str, Any] | None = None,
    notes: dict[str, Any] | None = None,
    started_at: str = "2026-11-21T10:00:00+00:00",
    device_name: str = "NVIDIA H200",
    **configuration: Any,
) -> Profile:
    chosen = {"backbone": "vit_b", "timm_name": "vit_base_patch16_224", "resolution": 512, **configuration}
    counted = {
        "macs": 107_030_000_000,
        "head_macs": 15_600_000_000,
        "params": 95_000_000,
        "ffn": "reused",
        "tap": "output",
        "flops_complete": True,
    }
    return Profile(
        configuration=Configuration(**chosen),
        environment=environment(device_name=device_name),
        status=status,
        reason=reason,
        batch=64,
        facts=counted if facts is None else facts,
        metrics={name: metric(name) for name in _NUMBERS} if metrics is None else metrics,
        notes={"kernels": ["flash_fwd"]} if notes is None else notes,
        started_at=started_at,
        seconds=12.5,
    )


def _metric_with(**values: Any) -> Profile:
    return profile(metrics={**profile().metrics, "throughput": replace(metric("throughput"), **values)})


NAN_PLACES: dict[str, Callable[[float], Profile]] = {
    "throughput.median": lambda value: _metric_with(median=value),
    "throughput.ci_low": lambda value: _metric_with(ci_low=value),
    "throughput.ci_high": lambda value: _metric_with(ci_high=value),
    "throughput.p90": lambda value: _metric_with(p90=value),
    "throughput.samples": lambda value: _metric_with(samples=(1.0, value)),
    "facts.density": lambda value: profile(facts={"density": value}),
    "facts.by_module.stem.0": lambda value: profile(facts={"by_module": {"stem": [value]}}),
    "seconds": lambda value: replace(profile(), seconds=value),
}

_floats = st.floats(allow_nan=False, allow_infinity=False)
_text = st.text(max_size=12)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | _floats | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=6,
)
_whole = st.integers(0, 2**63 - 1)


def _configurations() -> st.SearchStrategy[Configuration]:
    head = st.builds(
        HeadConfig,
        name=st.sampled_from(["luma", "none"]),
        num_queries=st.integers(1, 10**6),
        num_classes=st.integers(1, 10**6),
        l2=st.just(1),
        width_cap=st.integers(1, 10**6),
    )
    whole = st.integers(-(2**63), 2**63 - 1)
    return st.builds(
        Configuration,
        **{name: _text for name in ("backbone", "timm_name", "family", "pretraining", "weights", "dtype", "compile")},
        **{name: _text for name in ("attention", "channels_last", "device", "part", "backbone_hash", "tag")},
        **{name: whole for name in ("resolution", "seed", "batch")},
        head=head,
        train_memory=st.booleans(),
    )


def _metrics() -> st.SearchStrategy[dict[str, Metric]]:
    one = st.builds(
        Metric,
        name=_text.filter(lambda name: name not in _NUMBERS),
        unit=_text,
        median=_floats,
        ci_low=_floats,
        ci_high=_floats,
        n=_whole,
        p90=st.none() | _floats,
        noisy=st.booleans(),
        samples=st.lists(_floats, max_size=5).map(tuple),
    )
    return st.lists(one, max_size=4).map(lambda metrics: {metric.name: metric for metric in metrics})


def profiles() -> st.SearchStrategy[Profile]:
    """Any profile that the store must keep exactly."""
    facts = st.fixed_dictionaries(
        {}, optional={"macs": _whole, "params": _whole, "ffn": _text, "flops_complete": st.booleans(), "extra": _json}
    )
    table = st.dictionaries(_text, _json, max_size=3)
    return st.builds(
        Profile,
        configuration=_configurations(),
        environment=st.builds(Environment, identity=table, provenance=table),
        status=st.sampled_from(["ok", "oom", "crashed", "timeout", "not_applicable", "failed"]),
        reason=_text,
        batch=st.none() | _whole,
        facts=facts,
        metrics=_metrics(),
        notes=table | st.fixed_dictionaries({"throttled": st.booleans(), "shared": st.none() | st.booleans()}),
        started_at=_text | st.datetimes().map(str),
        seconds=_floats,
    )
