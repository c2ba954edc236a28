"""`luma compare` and `luma recommend --why-not`: two questions about named backbones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from luma_cli.accuracy.model import load_model
from luma_cli.accuracy.sightings import AccuracyModel
from luma_cli.advise.compare import compare
from luma_cli.advise.question import Question
from luma_cli.advise.why_not import why_not
from luma_cli.catalogue.licences import expanded
from luma_cli.cli.app import run
from luma_cli.errors import NothingMeasured, UnknownName, UsageError
from luma_cli.units import parse_budget


@pytest.fixture(scope="module")
def model(kept_fit: Path) -> AccuracyModel:
    return load_model(cache=kept_fit / "luma" / "accuracy")


def asked(*budgets: str, dataset: str = "ade20k", licences: frozenset[str] = frozenset()) -> Question:
    return Question(dataset, tuple(map(parse_budget, budgets)), licences=licences)


def test_every_pair_is_judged_once_and_the_better_one_comes_first(model: AccuracyModel) -> None:
    found = compare(asked(), ["vit_b.dinov3", "eva02_b.eva02", "swin_b"], fit=lambda _: model)
    assert [row.candidate.name for row in found.rows] == ["vit_b.dinov3", "eva02_b.eva02", "swin_b.supervised_in1k"]
    assert {row.candidate.resolution for row in found.rows} == {512}
    assert {(min(each.better, each.worse), max(each.better, each.worse)) for each in found.pairs} == {
        *((0, 1), (0, 2)),
        (1, 2),
    }
    for pair in found.pairs:
        assert 0.5 <= pair.chance <= 1
        better, worse = found.rows[pair.better].prediction, found.rows[pair.worse].prediction
        assert pair.points == pytest.approx(better.miou_percent - worse.miou_percent)
    swin = next(each for each in found.pairs if each.worse == 2)
    assert swin.verdict == "better"
    assert swin.reason.startswith("mainly pretraining")
    json.dumps(found.to_json(), allow_nan=False)


def test_what_cannot_be_compared(model: AccuracyModel) -> None:
    with pytest.raises(UsageError, match="1 backbone is given, expected two or more"):
        compare(asked(), ["vit_b.dinov3", "vit_b.dinov3"], fit=lambda _: model)
    with pytest.raises(UnknownName, match="backbone 'swin_bb' is not known; nearest: swin_b"):
        compare(asked(), ["vit_b.dinov3", "swin_bb"], fit=lambda _: model)
    with pytest.raises(UsageError, match="expected one size to compare at"):
        compare(Question("ade20k", resolutions=(512, 640)), ["vit_b.dinov3", "swin_b"], fit=lambda _: model)


@pytest.mark.usefixtures("fitted")
def test_compare_prints_a_table_and_a_sentence_for_each_pair(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "vit_b.dinov3", "swin_b", "--dataset", "cityscapes"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"# vit_b.dinov3 is (likely )?better than swin_b.supervised_in1k: P 0\.\d\d|P 1\.00", out)
    assert "mIoU on cityscapes at 1024 px" in out


def test_why_not_says_what_is_against_it_and_what_would_help(model: AccuracyModel) -> None:
    behind = why_not(asked("200gflops"), "vit_b.dinov3", fit=lambda _: model)
    assert behind.first
    assert behind.first.candidate.name == "eva02_b.eva02"
    assert (behind.better or 1) < 0.5
    assert behind.reasons
    assert re.fullmatch(r"an own run above 5\d\.\d mIoU", behind.remedy)
    assert behind.command == "luma train vit_b.dinov3 --data ade20k --res 512"
    first = why_not(asked("200gflops"), "eva02_b.eva02", fit=lambda _: model)
    assert (first.reasons, first.remedy, first.command) == ((), "", "")


def test_why_not_of_a_card_alone_means_its_best_weights(model: AccuracyModel) -> None:
    assert why_not(asked("200gflops"), "eva02_b", fit=lambda _: model).row.candidate.name == "eva02_b.eva02"


def test_why_not_over_budget_is_of_the_cheapest_size_with_evidence(model: AccuracyModel) -> None:
    found = why_not(asked("10gflops"), "vit_b.dinov3", fit=lambda _: model)
    assert found.row.candidate.resolution == 512
    assert "a budget of 123.1 GFLOPs" in found.remedy


def test_why_not_without_the_device_that_a_budget_needs(model: AccuracyModel, tmp_path: Path) -> None:
    with pytest.raises(NothingMeasured, match="30fps depends on the device: name one"):
        why_not(asked("30fps"), "vit_b.dinov3", tmp_path / "luma.db", fit=lambda _: model)


@pytest.mark.parametrize(
    ("question", "name", "reason"),
    [
        (asked("10gflops"), "vit_7b.dinov3", "does not surely meet 10gflops"),
        (
            asked("500gflops", licences=expanded(["permissive"])),
            "vit_l.dinov3",
            "--license leaves it out: it is dinov3",
        ),
        (asked("200gflops"), "hiera_l.mae_ft", "no direct evidence"),
    ],
)
def test_why_not_names_the_reason(model: AccuracyModel, question: Question, name: str, reason: str) -> None:
    found = why_not(question, name, fit=lambda _: model)
    assert any(reason in each for each in found.reasons), found.reasons


def test_why_not_of_nothing(model: AccuracyModel) -> None:
    with pytest.raises(UsageError, match="'hiera_l': --head eomt does not support it; leave --head out"):
        why_not(Question("ade20k", head="eomt"), "hiera_l", fit=lambda _: model)
    with pytest.raises(UnknownName, match="'vit_b.dinov33' is no candidate; nearest: vit_b.dinov3"):
        why_not(asked("200gflops"), "vit_b.dinov33", fit=lambda _: model)
