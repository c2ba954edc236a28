"""Counting anew: what differs from the closed form is refused, a dying worker is said, progress is told."""

from __future__ import annotations

import io
import os
from dataclasses import replace

import pytest

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.errors import MeasureError
from luma_cli.measure import recount as module
from luma_cli.measure.cost import Cost
from luma_cli.measure.count_request import Refusal
from luma_cli.measure.recount import checked, count_one, recount
from luma_cli.report.progress import Countdown

VIT = resolve("test_vit")


@pytest.mark.parametrize("name", ["luma", "eomt", "linear", "none"])
def test_one_segmenter_is_counted_with_its_head(name):
    counted = count_one(VIT, 64, HeadConfig(name=name))
    assert isinstance(counted, Cost)
    assert counted.source == "counted"
    assert (counted.head_params > 0) == (name != "none")


def test_a_count_that_the_closed_form_denies_is_refused():
    counted = count_one(VIT, 64, HeadConfig())
    assert isinstance(counted, Cost)
    formula = (counted.head_macs, counted.head_params)
    assert checked(counted, formula) is counted
    for wrong in (replace(counted, head_macs=formula[0] + 1), replace(counted, head_params=formula[1] - 1)):
        refused = checked(wrong, formula)
        assert isinstance(refused, Refusal)
        assert "test_vit at 64: the closed form gives the head" in refused.message


def test_a_head_that_cannot_be_attached_is_a_refusal():
    refused = count_one(resolve("test_convnext"), 64, HeadConfig(name="eomt"))
    assert isinstance(refused, Refusal)
    assert refused.kind == "BuildError"


def test_a_backbone_that_fails_in_its_own_code_does_not_hide_the_others(monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("no width")

    monkeypatch.setattr("luma_cli.head.segmenter.build", broken)
    refused = count_one(VIT, 64, HeadConfig())
    assert refused == Refusal("MeasureError", "test_vit at 64 could not be counted: ZeroDivisionError: no width")


def _die(imports):
    os._exit(3)


def test_a_dying_worker_is_one_line(monkeypatch):
    monkeypatch.setattr(module, "_prepare", _die)
    with pytest.raises(MeasureError, match="a counting process died after 0 of 1 counts"):
        recount([(VIT, 64)], HeadConfig(), num_workers=1)


def test_progress_says_how_long_the_rest_takes():
    file, seconds = io.StringIO(), iter([0.0, 4.0, 12.0, 13.0, 24.0])
    countdown = Countdown(file, 4, lambda: next(seconds))
    for _ in range(4):
        countdown()
    assert file.getvalue().splitlines() == [
        "luma: counted 2 of 4 in 0:12, about 0:12 left",
        "luma: counted 4 of 4 in 0:24, about 0:00 left",
    ]
