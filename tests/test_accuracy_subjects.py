from __future__ import annotations

from dataclasses import replace

import pytest
from accuracy_world import own, row

from luma_cli.accuracy.effects import GROUPS, features
from luma_cli.accuracy.subjects import HERE, Subject, kind_of, subject_of, subject_of_row
from luma_cli.catalogue.cards import candidates
from luma_cli.catalogue.pretraining import load_objectives


def terms(subject: Subject) -> dict[tuple[str, str], float]:
    return {(group, level): value for group, level, value in features(subject, {}, {"cityscapes": 2.0})}


def test_an_own_run_is_the_candidate_that_it_is_of_in_every_effect() -> None:
    for each in candidates():
        run = subject_of_row(own(each.timm_name, 50.0, pretraining=each.pretraining))
        candidate = subject_of(each.timm_name, "ade20k", resolution=512, pretraining=each.pretraining)
        assert terms(run) == terms(candidate), each.timm_name


def test_a_changed_recipe_is_one_of_its_own_with_its_length() -> None:
    def recipe(schedule: str) -> str:
        changed = own("swin_tiny", 40.0, recipe="measured here: recipe ade20k changed", schedule=schedule)
        return subject_of_row(changed).recipe

    assert recipe("500 iters") == "recipe ade20k changed, 500 iters"
    assert recipe("500 iters") != recipe("9000 iters")
    groups = {group for group, _ in terms(subject_of_row(own("swin_tiny", 40.0, recipe="measured here: x")))}
    assert "changed recipe" in groups
    assert "recipe" not in groups


def test_a_published_recipe_is_a_recipe() -> None:
    published = terms(subject_of_row(row(recipe="lightly-train", head="eomt")))
    assert published["recipe", "eomt, lightly-train"] == 1.0


def test_self_training_is_a_recipe_of_its_own() -> None:
    taught = row(head="eomt", recipe="lightly-train", extra_data="LVD-1689M + SUN397 pseudo-labels")
    assert subject_of_row(taught).recipe == "lightly-train, pseudo-labels"
    assert subject_of_row(row(extra_data="ImageNet-22k + COCO-Stuff")).recipe == ""


def test_iterations_count_where_a_source_states_them() -> None:
    assert subject_of_row(row(schedule="80000 iters")).iterations == 80_000
    assert subject_of_row(row(schedule="107 epochs, bs16")).iterations is None
    assert subject_of_row(own("swin_tiny", 44.0)).iterations is None
    half = terms(subject_of_row(row(schedule="80000 iters")))["iterations", "ade20k"]
    assert half == pytest.approx(-0.693, abs=1e-3)


def test_every_effect_is_of_a_known_group_and_stands_once() -> None:
    for subject in (
        subject_of_row(row()),
        subject_of_row(own("nobody_knows", 20.0, recipe="measured here: x", dataset="cityscapes")),
        subject_of_row(row("vit_large_patch14_dinov2.lvd142m", regime="frozen", head="linear", extra_data="more")),
        subject_of("x", "pascal", resolution=100),
    ):
        found = features(subject, {}, {})
        keys = [(group, level) for group, level, _ in found]
        assert len(set(keys)) == len(keys)
        assert {group for group, _ in keys} <= set(GROUPS)


def test_luma_has_eomts_effects_and_its_own_level() -> None:
    luma, eomt = (terms(subject_of("swin_tiny", "ade20k", resolution=512, head=head)) for head in ("luma", "eomt"))
    own = {
        ("luma", "luma"): 1.0,
        ("size x luma", "luma"): eomt["size", "all"],
        ("tokens x luma", "luma"): 0.0,
        ("luma at a crop", "ade20k, 512x512"): 1.0,
        ("luma at a size and crop", "swin_tiny, ade20k, 512x512"): 1.0,
    }
    assert luma == {**eomt, **own}


def test_a_dataset_counts_sensitive_effects_more() -> None:
    here, there = (
        terms(subject_of("swin_large", name, resolution=512, pretraining="clip")) for name in ("ade20k", "cityscapes")
    )
    assert there["size", "all"] == 2 * here["size", "all"]
    assert (here["objective", "clip"], there["objective", "clip"]) == (1.0, 2.0)
    assert there["level", "all"] == here["level", "all"]


def test_few_pixels_have_an_effect_of_their_own_per_regime() -> None:
    low = terms(subject_of("swin_tiny", "ade20k", resolution=224))
    assert low["low resolution", "ade20k, fine-tuned"] > 1
    assert not [group for group, _ in terms(subject_of("swin_tiny", "ade20k", resolution=640)) if "low" in group]
    assert not [group for group, _ in terms(subject_of("swin_tiny", "ade20k")) if "tokens" in group]


def test_every_objective_of_the_list_has_its_kind() -> None:
    """A row prints words, a candidate a name: both must be of one kind."""
    plain = subject_of("vit_base_patch16_224", "ade20k")
    for name in load_objectives():
        named, worded = (replace(plain, pretraining=name, pretraining_raw=words) for words in ("", "clip mae dino"))
        assert kind_of(named) == kind_of(worded), name


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("supervised", "labels"),
        ("self-supervised clusters", "self-distilled"),
        ("cae v2 (clip target)", "masked"),
        ("image-text pairs", "language"),
        ("none (scratch)", "mixed"),
        ("", "mixed"),
    ],
)
def test_words_tell_the_kind_of_an_objective_that_is_not_in_the_list(words: str, kind: str) -> None:
    assert kind_of(replace(subject_of("x", "ade20k"), pretraining_raw=words)) == kind


@pytest.mark.parametrize(
    ("name", "words", "objective"),
    [
        ("vit_base_patch16_224.mae", "", "mae"),
        ("vit_base_patch16_dinov3.lvd1689m", "", "dinov3"),
        ("swin_tiny_patch4_window7_224.ms_in1k", "", "supervised_in1k"),
        ("Swin-T", "", "other"),
        ("Swin-T", "supervised", "supervised_in1k"),
        ("Swin-L", "supervised ImageNet-22k", "supervised_in21k"),
        ("ViT-B/16", "MAE", "mae"),
        ("ViT-B/16", "our own trick", "our own trick"),
    ],
)
def test_the_objective_is_read_off_words_or_the_tag(name: str, words: str, objective: str) -> None:
    assert subject_of(name, "ade20k", pretraining=words).objective == objective


def test_a_frozen_head_makes_a_frozen_subject() -> None:
    assert subject_of("ViT-B/16", "ade20k", head="linear (frozen)").regime == "frozen"
    assert subject_of("ViT-B/16", "ade20k", head="upernet").regime == "fine-tuned"
    assert subject_of("ViT-B/16", "ade20k").source == HERE


def test_sizes_beyond_the_largest_that_gained_gain_nothing_more() -> None:
    giant, larger = (
        terms(replace(subject_of("vit_giant_patch14_dinov2.lvd142m", "ade20k"), params=params)) for params in (2e9, 7e9)
    )
    assert giant == larger
    assert giant["size", "all"] > terms(subject_of("vit_giant_patch14_dinov2.lvd142m", "ade20k"))["size", "all"]
