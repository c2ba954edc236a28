"""The table of profiles: intervals in the digits that they support, reasons where a sentence has room."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_samples import metric, profile

from luma_cli.report.profiles import profile_table


@pytest.mark.parametrize(
    ("median", "half", "expected"),
    [
        (425.2, 70.0, "430 ±70"),
        (1_234_567.0, 12_000.0, "1,230,000 ±10,000"),
        (5.123, 0.04, "5.12 ±0.04"),
        (8.0, 0.0, "8.0 ±0.0"),
    ],
)
def test_interval_has_the_digits_that_it_supports(median: float, half: float, expected: str) -> None:
    measured = replace(metric("throughput"), median=median, ci_low=median - half, ci_high=median + half)
    assert profile_table([profile(metrics={"throughput": measured})]).rows[0][5] == expected


def test_reason_and_part_stand_below_the_table() -> None:
    table = profile_table([profile(status="failed", reason="no such file", part="backbone", metrics={})])
    assert table.rows[0][-1] == "failed"
    assert "vit_b at 512 px, failed: no such file" in table.caption
    assert "backbone alone" in table.caption
