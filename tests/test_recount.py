"""Counting anew: what differs from the closed form is refused, a dying worker is said, progress is told."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.names import resolve
from luma_cli.errors import MeasureError
from luma_cli.measure.cost import Cost, CountJob, Refusal, recount
from luma_cli.measure.facts import answer, checked
from luma_cli.report.progress import Countdown

VIT = resolve("test_vit")


@pytest.mark.parametrize("name", ["luma", "eomt", "linear", "none"])
def test_one_segmenter_is_counted_with_its_head(name):
    counted = answer(CountJob(VIT, 64, HeadConfig(name=name)))
    assert isinstance(counted, Cost)
    assert counted.source == "counted"
    assert (counted.head_params > 0) == (name != "none")


def test_a_count_that_the_closed_form_denies_is_refused():
    counted = answer(CountJob(VIT, 64, HeadConfig()))
    assert isinstance(counted, Cost)
    formula = (counted.head_macs, counted.head_params)
    assert checked(counted, formula) is counted
    for wrong in (replace(counted, head_macs=formula[0] + 1), replace(counted, head_params=formula[1] - 1)):
        refused = checked(wrong, formula)
        assert isinstance(refused, Refusal)
        assert "test_vit at 64: the closed form gives the head" in refused.message


def test_a_head_that_cannot_be_attached_is_a_refusal():
    refused = answer(CountJob(resolve("test_convnext"), 64, HeadConfig(name="eomt")))
    assert isinstance(refused, Refusal)
    assert refused.kind == "BuildError"


def test_a_backbone_that_fails_in_its_own_code_does_not_hide_the_others(monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError("no width")

    monkeypatch.setattr("luma_cli.head.segmenter.build", broken)
    refused = answer(CountJob(VIT, 64, HeadConfig()))
    assert refused == Refusal("MeasureError", "test_vit at 64 could not be counted: ZeroDivisionError: no width")


def test_costs_counted_anew_come_in_the_order_wanted_and_are_told():
    told = []
    wanted = [(VIT, 64), (resolve("test_convnext"), 64), (VIT, 96)]
    found = recount(wanted, HeadConfig(), on_count=lambda: told.append(1))
    assert [(each.backbone, each.resolution) for each in found] == [(spec.name, size) for spec, size in wanted]
    assert found[0] == answer(CountJob(VIT, 64, HeadConfig()))
    assert len(told) == 3


def test_a_dying_worker_is_one_line(tmp_path):
    dying = tmp_path / "dying.py"
    dying.write_text("import os, sys\nprint('last words', file=sys.stderr, flush=True)\nos._exit(3)\n")
    with pytest.raises(MeasureError, match="the counting process ended with code 3: last words"):
        recount([(VIT, 64)], HeadConfig(), imports=[str(dying)])


def test_progress_says_how_long_the_rest_takes():
    file, seconds = io.StringIO(), iter([0.0, 4.0, 12.0, 13.0, 24.0])
    countdown = Countdown(file, 4, lambda: next(seconds))
    for _ in range(4):
        countdown()
    assert file.getvalue().splitlines() == [
        "luma: counted 2 of 4 in 0:12, about 0:12 left",
        "luma: counted 4 of 4 in 0:24, about 0:00 left",
    ]
