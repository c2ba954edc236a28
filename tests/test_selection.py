"""Filters of the table of results."""

from __future__ import annotations

import pytest
from evidence_samples import row

from luma_cli.evidence.evidence import Selection

ROWS = [
    row(id="ref-1", timm="vit_base_patch16_dinov3.lvd1689m"),
    row(id="imp-2", dataset="cityscapes", head="luma", provenance="published LUMA", pretraining="mae"),
    row(id="run-3", regime="frozen", doubtful="odd", source="My Table", provenance="own run"),
]


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({}, ["ref-1", "imp-2", "run-3"]),
        ({"dataset": "Cityscapes"}, ["imp-2"]),
        ({"dataset": "city"}, []),
        ({"head": "EoMT"}, ["ref-1", "run-3"]),
        ({"backbone": "DINOv3"}, ["ref-1"]),
        ({"pretraining": "mae"}, ["imp-2"]),
        ({"provenance": "own run"}, ["run-3"]),
        ({"regime": "frozen"}, ["run-3"]),
        ({"source": "my"}, ["run-3"]),
        ({"doubtful": True}, ["run-3"]),
        ({"doubtful": False, "head": "eomt"}, ["ref-1"]),
        ({"imported": True}, ["imp-2"]),
    ],
)
def test_every_filter_must_hold(asked: dict[str, object], ids: list[str]) -> None:
    assert [each.id for each in Selection(**asked).of(ROWS)] == ids  # type: ignore[arg-type]
