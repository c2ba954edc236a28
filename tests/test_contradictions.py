"""Rows of one model, protocol and source that cannot all be right."""

from __future__ import annotations

import pytest
from evidence_samples import row

from luma_cli.evidence.evidence import contradictions, marked


def test_more_than_a_point_apart() -> None:
    first, second, third = row(id="a"), row(id="b", miou_percent=51.2), row(id="c", miou_percent=50.4)
    (found,) = contradictions([first, second, third])
    assert found.rows == (first, second, third)
    assert (
        found.text == "vit_b, EoMT, fine-tuned, single-scale, ADE20K val, 512x512 (a table): 50 and 50.4 and 51.2 mIoU"
    )


@pytest.mark.parametrize(
    "different",
    [
        {"miou_percent": 51.0},
        {"backbone": "vit_l"},
        {"pretraining": "mae"},
        {"height": 640, "width": 640},
        {"head": "luma"},
        {"eval": "ms+flip"},
        {"source": "another"},
        {"recipe": "long"},
        {"schedule": "80000 iters"},
        {"extra_data": "COCO"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_different_things_may_score_differently(different: dict[str, object]) -> None:
    assert contradictions([row(), row(**{"miou_percent": 60.0, **different})]) == []


def test_marks_name_the_other_figure_and_leave_the_rest_alone() -> None:
    first, second, other = row(id="a"), row(id="b", miou_percent=52.0, doubtful="odd"), row(id="c", backbone="x")
    shipped = row(id="ref-1", backbone="x", miou_percent=55.0)
    found = marked([first, second, other], beside=[shipped])
    assert [each.doubtful for each in found] == [
        "the same source also has 52 mIoU for it",
        "odd; the same source also has 50 mIoU for it",
        "the same source also has 55 mIoU for it",
    ]
