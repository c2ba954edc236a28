"""`luma estimate`: one segmenter has the same numbers as in a recommendation, however it is spelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from luma_cli.accuracy.model import LearnedModel, load_model
from luma_cli.advise.candidates import subject
from luma_cli.advise.estimate import Asked, Estimate, estimates
from luma_cli.advise.question import Priced, Question
from luma_cli.advise.setting import load
from luma_cli.catalogue.costs import load_costs
from luma_cli.catalogue.heads import HeadName
from luma_cli.speed.model import SpeedModel
from luma_cli.units import BudgetKind

DEVICE = "RTX 4090"
KINDS: tuple[BudgetKind, ...] = ("macs", "params", "ms", "images_per_second", "bytes")


@pytest.fixture(scope="module")
def model(kept_fit: Path) -> LearnedModel:
    return load_model(cache=kept_fit / "luma" / "accuracy")


def _speed(head: HeadName) -> SpeedModel:
    return SpeedModel.load([], DEVICE, head=head)


def _estimates(model: LearnedModel, *asked: Asked) -> list[Estimate]:
    return estimates(asked, model, load_costs(), _speed)


def _pool(model: LearnedModel, dataset: str, tmp_path: Path) -> list[Priced]:
    question = Question(dataset, (), resolutions=(384,), device=DEVICE)
    return list(load(question, KINDS, tmp_path / "luma.db", lambda rows: model).pool)


@pytest.mark.parametrize("spelled", ["card", "timm"])
def test_every_candidate_is_estimated_as_it_is_recommended(model: LearnedModel, tmp_path: Path, spelled: str) -> None:
    pool = _pool(model, "ade20k", tmp_path)
    names = [each.candidate.name if spelled == "card" else each.candidate.timm_name for each in pool]
    found = _estimates(model, *(Asked("ade20k", name, resolution="384") for name in names))
    predicted = model.predict([subject(each.candidate, "ade20k", "luma") for each in pool])
    assert len(found) > 300
    for name, priced, expected, each in zip(names, pool, predicted, found, strict=True):
        assert each.prediction is not None, name
        said, wanted = each.prediction, expected
        assert (said.support, said.extrapolated, said.reason) == (wanted.support, wanted.extrapolated, wanted.reason)
        assert [said.miou_percent, *said.interval_80] == pytest.approx([wanted.miou_percent, *wanted.interval_80]), name
        assert each.costs.keys() == priced.costs.keys(), name
        for kind, cost in priced.costs.items():
            mine = each.costs[kind]
            assert mine.origin == cost.origin
            assert [mine.value, mine.low, mine.high] == pytest.approx([cost.value, cost.low, cost.high]), (name, kind)


def test_a_number_after_a_point_is_no_tag(model: LearnedModel) -> None:
    (found,) = _estimates(model, Asked("ade20k", "repvit_m1.1", resolution="512"))
    assert found.subject is not None
    assert found.subject.pretraining == "supervised_in1k"
    assert "assumed" in found.remark


@pytest.mark.parametrize(
    ("name", "pretraining", "taken"), [("vit_b.dinov3", "foo", "dinov3"), ("vit_b.dinov9", "", "other")]
)
def test_an_unknown_pretraining_is_said(model: LearnedModel, name: str, pretraining: str, taken: str) -> None:
    (found,) = _estimates(model, Asked("ade20k", name, pretraining, "512"))
    assert found.subject is not None
    assert found.subject.pretraining == taken
    assert found.remark.startswith(f"pretraining {pretraining or 'dinov9'!r} is not known, {taken} assumed")


def test_data_alone_names_supervised_pretraining(model: LearnedModel) -> None:
    (found,) = _estimates(model, Asked("ade20k", "Swin-B", "IN-22K", "512"))
    assert found.subject is not None
    assert found.subject.pretraining == "supervised_in21k"
    assert not found.remark


def test_a_crop_without_pixels_is_refused(model: LearnedModel) -> None:
    (found,) = _estimates(model, Asked("ade20k", "vit_b.dinov3", resolution="0"))
    assert found.prediction is None
    assert "is neither" in found.remark


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("Semantic FPN", "semantic-fpn"),
        ("semantic_fpn", "semantic-fpn"),
        ("UperHead", "upernet"),
        ("ViT-Adapter + UPerNet", "vit-adapter+upernet"),
        ("DeepLabV3+", "deeplabv3plus"),
        ("linear probe", "linear"),
        ("Segmenter", "segmenter-mask"),
        ("SETR", "setr-pup"),
    ],
)
def test_heads_in_other_spellings_are_those_of_the_evidence(model: LearnedModel, spelled: str, name: str) -> None:
    (found,) = _estimates(model, Asked("ade20k", "vit_large_patch16_384", "supervised", "512", spelled))
    assert found.subject is not None
    assert found.subject.head == name
    assert found.prediction is not None
    assert "no evidence for head" not in found.prediction.reason


def test_a_name_that_only_ends_like_a_vit_is_none(model: LearnedModel) -> None:
    (found,) = _estimates(model, Asked("ade20k", "SuperViT-L", "mae", "512"))
    assert found.prediction is not None
    assert "no evidence for the series supervit_l" in found.prediction.reason
