"""Rows under other conditions are named with what differs, and with what was done about them."""

from __future__ import annotations

import json
from dataclasses import replace

from advise_world import conditions, measured

from luma_cli.advise.costs import set_apart
from luma_cli.speed.bench import bench_of

HERE = conditions(compile="none", environment=json.dumps({"torch": "2.0", "driver": "550"}))


def test_another_compile_mode_is_left_out_and_another_environment_corrected() -> None:
    compiled = replace(HERE, compile="max-autotune")
    older = replace(HERE, environment=json.dumps({"torch": "1.9", "driver": "550"}))
    rows = [
        *(measured(f"a{n}", conditions=HERE, started_at="2026-01-03T00:00:00Z") for n in range(3)),
        measured("a0", conditions=compiled),
        measured("b", conditions=compiled),
        measured("c", conditions=older),
    ]
    assert set_apart(rows, bench_of(rows)) == [
        "2 measured rows with another compile: left out",
        "1 measured row with another environment: corrected by an offset",
    ]


def test_repeated_and_flagged_rows() -> None:
    rows = [
        measured("a", conditions=HERE, started_at="2026-01-01T00:00:00Z"),
        measured("a", conditions=HERE, started_at="2026-01-02T00:00:00Z"),
        measured("b", conditions=HERE, flags=("throttled",)),
    ]
    assert set_apart(rows, bench_of(rows)) == [
        "1 measured row flagged throttled: left out",
        "1 measured row repeated since: left out",
    ]


def test_nothing_measured_sets_nothing_apart() -> None:
    assert set_apart([], bench_of([])) == []
