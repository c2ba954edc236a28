"""Objectives: shipped ones are whole, timm tags find theirs, traps in timm's tags are kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from luma_cli.catalogue.cards import candidates
from luma_cli.catalogue.pretraining import load_objectives, objective_named, objective_of, read_objectives
from luma_cli.catalogue.timm_index import load_index
from luma_cli.errors import BadCard

GOOD = '[mae]\ntitle = "Masked autoencoder"\ndata = "ImageNet-1k"\ndense = true\nsource = "https://arxiv.org/abs/2111.06377"\n'


def test_every_shipped_objective_says_what_it_is() -> None:
    for objective in load_objectives().values():
        assert objective.title
        assert objective.data
        assert objective.source.startswith("https://")


@pytest.mark.parametrize(
    ("timm_name", "objective"),
    [
        ("vit_base_patch16_224.mae", "mae"),
        ("hiera_base_224.mae_in1k_ft_in1k", "mae_ft"),
        ("vit_base_patch16_224.sam_in1k", "supervised_in1k"),
        ("samvit_base_patch16.sa1b", "sam"),
        ("convnext_base.clip_laion2b_augreg", "clip"),
        ("convnext_base.clip_laion2b_augreg_ft_in1k", "clip_ft"),
        ("convnext_base.dinov3_lvd1689m", "dinov3"),
        ("vit_base_patch16_dinov3_qkvb.eupe_lvd1689m", "eupe"),
        ("vit_base_patch14_reg4_dinov2.lvd142m", "dinov2"),
        ("vit_base_patch16_siglip_224.webli", "siglip"),
        ("vit_base_patch16_siglip_224.v2_webli", "siglip2"),
        ("convnextv2_base.fcmae", "fcmae"),
        ("convnextv2_base.fcmae_ft_in22k_in1k", "fcmae_ft"),
        ("resnet50.fb_swsl_ig1b_ft_in1k", "weakly_supervised"),
        ("convnext_base.fb_in22k_ft_in1k_384", "supervised_in21k"),
        ("convnext_tiny.in12k_ft_in1k", "supervised_in12k"),
        ("swin_tiny_patch4_window7_224.ms_in1k", "supervised_in1k"),
        ("deit3_base_patch16_224.fb_in1k", "deit3"),
        ("resnet50.bamboo", ""),
        ("made_up.tag", ""),
    ],
)
def test_a_tag_belongs_to_its_objective(timm_name: str, objective: str) -> None:
    assert objective_of(timm_name) == objective


def test_the_patterns_agree_with_what_the_cards_list() -> None:
    for spec in candidates():
        if spec.public_weights:
            assert objective_of(spec.timm_name) == spec.pretraining


def test_most_of_timms_tags_have_an_objective() -> None:
    tags = [f"{name}.{tag}" for name, entry in load_index().entries.items() for tag in entry.tags]
    assert sum(bool(objective_of(tag)) for tag in tags) / len(tags) > 0.95


def test_an_alias_names_its_objective() -> None:
    found = objective_named("in21k")
    assert found is not None
    assert found.name == "supervised_in21k"
    assert objective_named("in21") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("dense = true", "dence = true"), "unknown key 'dence'; did you mean 'dense'"),
        (GOOD.replace("dense = true", 'dense = "yes"'), "dense is 'yes', expected true or false"),
        (GOOD.replace("data", "# data"), "data is missing"),
        (GOOD + 'aliases = ["mae"]\n', "alias 'mae' is used twice"),
        ('mae = "text"\n', "expected a table"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "pretraining.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadCard, match=message):
        read_objectives(path)
