"""Recipes: the shipped ones are sound, and whatever is wrong with another is said at once, with what to type."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from luma_cli.catalogue.recipes import (
    SETTINGS,
    Recipe,
    check,
    default_recipe,
    folder,
    load_recipe,
    recipe_names,
    with_changes,
)
from luma_cli.errors import BadRecipe

NAMES = [
    *("ade20k", "cityscapes", "eomt-ade20k", "eomt-ade20k-dinov3", "eomt-cityscapes"),
    *("luma-ade20k", "small", "smoke"),
]


def refusal(*changes: str, recipe: str = "ade20k") -> str:
    with pytest.raises(BadRecipe) as caught:
        with_changes(load_recipe(recipe), changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def file_refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(BadRecipe) as caught:
        load_recipe(written(tmp_path, text))
    return str(caught.value)


def test_a_recipe_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert load_recipe(written(tmp_path, "\ufeffsteps = 7")).steps == 7
    (tmp_path / "latin.toml").write_bytes(b"source = '\xe9'")
    with pytest.raises(BadRecipe, match=r"latin\.toml cannot be read: it is not UTF-8 \(at line 1\)"):
        load_recipe(str(tmp_path / "latin.toml"))


def test_names_of_the_shipped_recipes() -> None:
    assert recipe_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_shipped_recipe_is_sound(name: str) -> None:
    recipe = load_recipe(name)
    check(recipe, recipe.steps or round(recipe.epochs * 1263), num_joint=4)
    assert recipe.name == name
    assert recipe.source


@pytest.mark.parametrize(("name", "epochs"), [("ade20k", 31), ("cityscapes", 107)])
def test_luma_and_eomt_share_the_published_numbers(name: str, epochs: int) -> None:
    luma, eomt = load_recipe(name), load_recipe(f"eomt-{name}")
    changed = {"decay_blocks": luma.decay_blocks, "rope_rescale": luma.rope_rescale}  # of deep ViTs, of DINOv3
    assert luma == replace(eomt, name=luma.name, source=luma.source, **changed)
    assert luma == replace(Recipe(name=name, source=luma.source), epochs=epochs)


def test_eomt_on_dinov3_has_a_recipe_of_its_own() -> None:
    assert default_recipe("ade20k", "eomt", NAMES, "vit_large_patch16_dinov3.lvd1689m") == "eomt-ade20k-dinov3"
    assert default_recipe("mine", "eomt", NAMES, "vit_large_patch16_dinov3.lvd1689m") == "small"
    assert default_recipe("cityscapes", "eomt", NAMES, "vit_large_patch16_dinov3.lvd1689m") == "eomt-cityscapes"
    assert default_recipe("ade20k", "eomt", NAMES, "vit_large_patch14_reg4_dinov2.lvd142m") == "eomt-ade20k"
    assert default_recipe("ade20k", "mask2former", NAMES, "swin_tiny_patch4_window7_224.ms_in1k") == "eomt-ade20k"
    assert default_recipe("ade20k", "luma", NAMES, "vit_large_patch16_dinov3.lvd1689m") == "ade20k"


def test_unknown_recipe_suggests_a_near_one() -> None:
    with pytest.raises(BadRecipe, match="did you mean 'cityscapes'"):
        load_recipe("cityscape")
    with pytest.raises(BadRecipe, match="no recipe file './none.toml'"):
        load_recipe("./none.toml")


def test_own_file_is_named_by_its_file_and_keeps_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "steps = 50\nlr = 1\nanneal_starts = [0]\nanneal_ends = [0.5]"))
    assert (recipe.name, recipe.steps, recipe.epochs, recipe.batch) == ("mine", 50, 0, 16)
    assert isinstance(recipe.lr, float)
    assert recipe.anneal_starts == (0,)
    assert recipe.source == ""


def test_every_problem_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    said = file_refusal(tmp_path, "lear_decay = 0.5\nbatch = 'many'\nbatch_norm = 'off'\nname = 'other'")
    for part in ("unknown setting 'lear_decay'; did you mean 'layer_decay'", "expected a whole number"):
        assert part in said
    for part in ("batch_norm is 'off', expected one of auto, sync, train, frozen", "expected 'mine'"):
        assert part in said


def test_values_out_of_range_are_named_at_once(tmp_path: Path) -> None:
    said = file_refusal(tmp_path, "lr = 0\nbeta2 = 1\nlayer_decay = 1.5\nhue = nan\nscale_min = 3")
    for part in ("lr is 0", "beta2 is 1", "layer_decay is 1.5", "hue is nan", "scale_min 3 is above scale_max 2"):
        assert part in said


@pytest.mark.parametrize("text", ["lr = ", "\xff = 1"])
def test_what_is_no_toml_names_the_file(tmp_path: Path, text: str) -> None:
    assert "mine.toml" in file_refusal(tmp_path, text)


def test_true_is_no_number(tmp_path: Path) -> None:
    assert "batch is True" in file_refusal(tmp_path, "batch = true")


def test_changes_are_read_as_their_type_and_named() -> None:
    changes = ["lr=2e-4", "freeze_backbone=true", "anneal_starts=0, 0.5", "anneal_ends=[0.5,1]", "batch=16"]
    recipe, names = with_changes(load_recipe("ade20k"), changes)
    assert (recipe.lr, recipe.freeze_backbone) == (2e-4, True)
    assert (recipe.anneal_starts, recipe.anneal_ends) == ((0.0, 0.5), (0.5, 1.0))
    assert names == ("lr", "anneal_starts", "anneal_ends", "freeze_backbone")


def test_one_way_to_say_the_length_takes_the_other_away() -> None:
    recipe, names = with_changes(load_recipe("ade20k"), ["steps=100"])
    assert (recipe.steps, recipe.epochs, names) == (100, 0, ("epochs", "steps"))
    recipe, _ = with_changes(recipe, ["epochs=2.5"])
    assert (recipe.steps, recipe.epochs) == (0, 2.5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["steps=10", "epochs=2"], "both epochs (2) and steps (10)"),
        (["steps=0", "epochs=0"], "neither epochs nor steps"),
        (["lrr=1"], "did you mean 'lr'"),
        (["name=mine"], "unknown setting 'name'"),
        (["lr"], "type --set lr=VALUE"),
        (["lr=fast"], "lr is 'fast', expected a number"),
        (["batch=1.5"], "batch is '1.5', expected a whole number"),
        (["freeze_backbone=maybe"], "expected true or false"),
        (["dtype=fp8"], "expected one of auto, bf16, fp16, fp32"),
        (["anneal_starts=0,a"], "expected a list of shares"),
        (["anneal_starts=0,0.1,0.2,0.3,0.4"], "5 anneal_starts but 0 anneal_ends"),
        (["anneal_starts=0.5", "anneal_ends=0.2"], "from 0.5 to 0.2"),
        (["anneal_starts=0.5", "anneal_ends=1.2"], "until 1.2, expected shares of at most 1, or whole steps"),
    ],
)
def test_wrong_changes(changes: list[str], said: str) -> None:
    assert said in refusal(*changes)


def test_warm_ups_longer_than_the_training_name_both_numbers_and_what_to_type() -> None:
    with pytest.raises(BadRecipe) as caught:
        check(load_recipe("ade20k"), 600)
    assert "500 + 1000 steps, but the training has 600" in str(caught.value)
    changes = [word.rstrip(",") for word in str(caught.value).split() if word.startswith("warmup_")]
    changed, _ = with_changes(load_recipe("ade20k"), changes)
    check(changed, 600)


def test_annealing_in_steps_must_end_within_the_training() -> None:
    changes = ["anneal_starts=0,6520", "anneal_ends=3000,16300"]
    recipe, _ = with_changes(load_recipe("eomt-ade20k"), changes)
    check(recipe, 16300, num_joint=2)
    check(recipe, 10000)  # another head has no masks to anneal
    with pytest.raises(BadRecipe, match="until step 16300, but the training has 10000") as caught:
        check(recipe, 10000, num_joint=2)
    typed = [word.rstrip(",") for word in str(caught.value).split() if word.startswith("anneal_")]
    check(with_changes(recipe, typed)[0], 10000, num_joint=2)


def test_every_setting_is_told_in_the_docs() -> None:
    text = (folder().parent.parent / "docs" / "reference" / "recipes.md").read_text(encoding="utf-8")
    assert [name for name in SETTINGS if f"`{name}`" not in text] == []
