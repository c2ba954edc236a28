"""What the shipped audit must reach, and what it says."""

from __future__ import annotations

import json

import pytest

from luma_cli.speed.audit import SpeedAudit, audit
from luma_cli.to_json import to_json


@pytest.fixture(scope="module")
def found() -> SpeedAudit:
    return audit()


def test_transfer_between_gpus_meets_its_targets(found: SpeedAudit) -> None:
    assert found.pooled[1].median_percent <= 8
    assert found.pooled[20].median_percent <= 5.5
    for error in found.pooled.values():
        assert 0.72 <= error.coverage_80 <= 0.9
        assert 0.85 <= error.coverage_90 <= 0.97


def test_devices_alone_in_their_class_are_apart(found: SpeedAudit) -> None:
    alone = {each.setting for each in found.transfers if not each.has_class}
    assert alone == {"CPU i9-10940X/fp32/nchw/dynamo/2.4", "RTX PRO 6000 Max-Q/bf16/nchw/dynamo/2.9.1"}
    assert found.pooled[1].num == sum(each.errors[1].num for each in found.transfers if each.has_class)


def test_small_to_large_is_reported_apart(found: SpeedAudit) -> None:
    assert len(found.upsizing) == 8
    gpus = [known for name, (known, _) in found.upsizing.items() if name.startswith("RTX")]
    assert all(error is not None and error.median_percent < 10 for error in gpus)


def test_json(found: SpeedAudit) -> None:
    assert "RTX 4090/amp/nhwc/eager/2.4" in found.upsizing
    assert json.loads(json.dumps(to_json(found), allow_nan=False))["pooled"]["1"]["num"] > 5000


def test_a_device_left_out_is_predicted_from_its_figures(found: SpeedAudit) -> None:
    assert {name.split("/")[0] for name in found.specified} == {
        "RTX 3090",
        "RTX 4090",
        "RTX 5090",
        "RTX PRO 6000 Max-Q",
    }
    for error in found.specified.values():
        assert error.num > 900
        assert error.median_percent < 35
        assert error.coverage_80 >= 0.8
    published = found.published.values()
    assert sum(each.num for each in published) >= 20
    assert sum(each.coverage_80 * each.num for each in published) / sum(each.num for each in published) >= 0.7
    assert max(each.median_percent for each in published) < 90
