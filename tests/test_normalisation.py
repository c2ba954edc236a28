"""Mean and standard deviation come from the checkpoint's own config, then from timm's, and nonsense is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_backbones import spec
from torch import nn

from luma_cli.backbone.create import create_backbone, wrap
from luma_cli.backbone.timm_model import Normalisation, normalisation_of, recipe_for
from luma_cli.errors import WeightsError

IMAGENET = (0.485, 0.456, 0.406)
HALF = (0.5, 0.5, 0.5)


def folder(path: Path, config: dict[str, Any]) -> str:
    (path / "config.json").write_text(json.dumps({"architecture": "test_vit", **config}))
    return f"local-dir:{path}"


def found(name: str, weights: str = "random") -> Normalisation:
    return normalisation_of(recipe_for(spec(name)), weights)


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        ("vit_base_patch16_224.augreg_in1k", HALF),
        ("vit_base_patch16_224.mae", IMAGENET),
        ("vit_base_patch16_clip_quickgelu_224.openai", (0.48145466, 0.4578275, 0.40821073)),
        ("vit_base_patch16_siglip_512.v2_webli", HALF),
        ("test_vit", HALF),
    ],
)
@pytest.mark.parametrize("weights", ["pretrained", "random", "weights.safetensors"])
def test_the_tag_of_the_name_decides(name: str, mean: tuple[float, ...], weights: str) -> None:
    normalisation = found(name, weights)
    assert normalisation.mean == mean
    assert normalisation.source == f"timm's config of {name}"


def test_a_folders_own_config_comes_first(tmp_path: Path) -> None:
    source = folder(tmp_path, {"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}})
    expected = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), f"config.json of {source}")
    assert found("test_vit", source) == expected
    assert found(source, "pretrained") == expected
    assert found(source, "random").mean == HALF
    assert create_backbone(spec(source), 64, weights="random", device="meta").normalisation.mean == HALF


@pytest.mark.parametrize("config", [{}, {"pretrained_cfg": {"tag": "own"}}, {"pretrained_cfg": None}])
def test_a_config_without_them_leaves_those_of_the_architecture(tmp_path: Path, config: dict[str, Any]) -> None:
    assert found("test_vit", folder(tmp_path, config)).source == "timm's config of test_vit"


def test_one_number_is_for_all_channels(tmp_path: Path) -> None:
    source = folder(tmp_path, {"pretrained_cfg": {"mean": 0.5, "std": [0.25]}})
    assert found("test_vit", source).std == (0.25, 0.25, 0.25)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5, 0.5], HALF, r"mean or std is \[0.5, 0.5\], expected three numbers"),
        (["a", "b", "c"], HALF, "expected three numbers"),
        ([float("nan"), 0, 0], HALF, "expected three numbers"),
        (HALF, [0.5, 0.0, 0.5], "expected three numbers above 0"),
        (HALF, None, "mean or std is None"),
    ],
)
def test_what_is_no_mean_and_std_is_refused(tmp_path: Path, mean: object, std: object, message: str) -> None:
    source = folder(tmp_path, {"pretrained_cfg": {"mean": mean, "std": std}})
    with pytest.raises(WeightsError, match=f"config.json of local-dir.*{message}") as caught:
        found("test_vit", source)
    assert "\n" not in str(caught.value)


def test_an_architecture_that_timm_knows_nothing_of_gets_imagenets() -> None:
    recipe = replace(recipe_for(spec("test_vit")), architecture="my_net", tag="own")
    assert normalisation_of(recipe, "random") == Normalisation()


def test_one_s_own_module_states_nothing() -> None:
    backbone = wrap(nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.GELU()), spec("own"), 64)
    assert backbone.normalisation == Normalisation()
    assert torch.tensor(backbone.normalisation.mean).tolist() == pytest.approx(IMAGENET)
