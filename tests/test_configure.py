"""From what was asked for to the configuration of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.errors import BadCard, UsageError
from luma_cli.train.config import Given, check_same, default_weights, micro_batch, new_config, resumed_config

ASKED = Given(backbone="vit_b.dinov3", data="ade20k")


def test_what_was_not_said_is_the_cards_weights_the_datasets_recipe_and_classes():
    found = new_config(ASKED)
    assert (found.weights, found.recipe.name, found.resolution, found.head) == (
        "pretrained",
        "ade20k",
        512,
        HeadConfig(),
    )
    assert found.recipe_changed == ()
    assert new_config(replace(ASKED, data="cityscapes")).head.num_classes == 19


@pytest.mark.parametrize(
    ("head", "recipe"), [("luma", "cityscapes"), ("linear", "cityscapes"), ("eomt", "eomt-cityscapes")]
)
def test_a_dataset_has_a_recipe_of_its_own_and_eomt_too(head, recipe):
    assert new_config(replace(ASKED, data="cityscapes", head={"name": head})).recipe.name == recipe


def test_changes_are_named_but_a_number_format_is_none():
    found = new_config(replace(ASKED, changes=("lr=3e-4", "dtype=fp32", "batch=16")))
    assert found.recipe.lr == 3e-4
    assert found.recipe.dtype == "fp32"
    assert found.recipe_changed == ("lr",)


@pytest.mark.parametrize(
    ("backbone", "weights"), [("test_vit", "random"), ("test_convnext", "random"), ("vit_s", "pretrained")]
)
def test_weights_are_random_for_test_models_alone(backbone, weights):
    assert new_config(replace(ASKED, backbone=backbone)).weights == weights


def test_default_weights_of_an_imported_model_are_not_random():
    from luma_cli.catalogue.names import resolve

    assert default_weights(resolve("my_own_net", imported=True)) == "pretrained"


@pytest.mark.parametrize(
    ("batch", "accumulate", "processes", "images"),
    [(16, None, 1, 0), (16, 1, 1, 16), (16, 3, 1, 6), (16, 2, 4, 2), (7, 2, 2, 2)],
)
def test_passes_per_step(batch, accumulate, processes, images):
    assert micro_batch(batch, accumulate, processes) == images


@pytest.mark.parametrize("accumulate", [0, 17, -1])
def test_impossible_passes_are_refused(accumulate):
    with pytest.raises(UsageError, match="expected 1 to 16"):
        micro_batch(16, accumulate, 1)


def test_an_own_dataset_is_known_by_its_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nclasses = ["a", "b"]\nimage_suffixes = [".png"]\nlabel_suffix = ".png"\n'
        '[splits.train]\nimages = "i"\nlabels = "l"\n[splits.val]\nimages = "i"\nlabels = "l"\n'
    )
    monkeypatch.chdir(tmp_path)
    found = new_config(replace(ASKED, data="mine.toml"))
    assert found.data == str(tmp_path / "mine.toml")
    assert found.head.num_classes == 2
    assert found.recipe.name == "small"
    assert check_same(found, resumed_config(Given(data="mine.toml"), found)) == ()


def test_an_unknown_dataset_is_refused():
    with pytest.raises((UsageError, BadCard), match="ade20k"):
        new_config(replace(ASKED, data="ade"))


def test_a_resumed_run_is_what_it_was_unless_said_otherwise():
    saved = new_config(replace(ASKED, changes=("lr=3e-4",)))
    assert resumed_config(Given(), saved) == saved
    assert resumed_config(Given(backbone="vit_b.dinov3", root="/elsewhere"), saved) == replace(
        saved, data_root="/elsewhere"
    )
    assert check_same(saved, resumed_config(Given(root="/elsewhere"), saved)) == ()


def test_what_is_said_again_at_resuming_is_compared():
    saved = new_config(replace(ASKED, head={"name": "luma", "num_queries": 50}))
    asked = resumed_config(Given(head={"num_queries": 60}, resolution=640), saved)
    assert (asked.head.num_queries, asked.resolution) == (60, 640)
    assert asked.head.num_classes == 150


def test_files_are_kept_by_their_whole_path_and_names_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("")
    monkeypatch.chdir(tmp_path)
    saved = new_config(Given(backbone="test_vit", data="ade20k", imports=("mine.py", "package.module")))
    assert saved.imports == (str(tmp_path / "mine.py"), "package.module")
    assert saved.data == "ade20k"
    monkeypatch.chdir("/")
    with pytest.raises(UsageError, match=r"needs /.*mine.py, package.module, which is code; add --import /"):
        resumed_config(Given(), saved)
    moved = resumed_config(Given(imports=("elsewhere.py",)), saved)
    assert moved.imports == ("/elsewhere.py",)
