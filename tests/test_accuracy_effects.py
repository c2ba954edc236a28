"""Which effects a subject has: the weights' data decides, regimes share none, heads without adapter have their own."""

from __future__ import annotations

import pytest
from accuracy_world import row

from luma_cli.accuracy.effects import LABELS_LOSS, features, observe, pretraining_data
from luma_cli.accuracy.model import learn
from luma_cli.accuracy.subjects import Subject, subject_of, subject_of_row


def terms(subject: Subject) -> dict[tuple[str, str], float]:
    return {(group, level): value for group, level, value in features(subject, {}, {})}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("convnextv2_base.fcmae", "imagenet-1k"),
        ("hiera_large_224.mae_in1k_ft_in1k", "imagenet-1k"),
        ("eva02_base_patch14_224.mim_in22k", "imagenet-21k"),
        ("eva02_large_patch14_224.mim_m38m", "merged-38m"),
        ("vit_base_patch16_dinov3.lvd1689m", "lvd-1689m"),
        ("vit_base_patch16_224.mae", "imagenet-1k"),
    ],
)
def test_the_tag_decides_the_data_else_the_objective_does(name: str, data: str) -> None:
    assert pretraining_data(subject_of(name, "ade20k"), {"eva02": "merged-38m"}) == data


def test_what_a_row_states_comes_before_its_tag() -> None:
    stated = row("swin_tiny.ms_in1k", pretraining_data="ImageNet-22k + more")
    assert pretraining_data(subject_of_row(stated), {}) == "imagenet-21k"


def test_an_objective_that_no_row_shows_is_at_the_level_of_its_data() -> None:
    """ImageNet-1k rows are 5 points below the others: an objective on ImageNet-1k that nobody published is too."""
    names = ("swin_tiny", "swin_small", "swin_base", "convnext_tiny", "convnext_small", "convnext_base")
    less = [row(name, 40.0, pretraining_data="ImageNet-1k", pretraining="deit") for name in names]
    more = [row(name, 45.0, pretraining_data="ImageNet-21k", pretraining="beit") for name in names]
    model = learn([*less, *more])
    unseen, known = (
        subject_of("swin_tiny", "ade20k", resolution=512, head="upernet", pretraining=name)
        for name in ("fcmae", "beit")
    )
    low, high = (each.miou_percent for each in model.predict([unseen, known]))
    assert low < high - 1


def test_frozen_probes_share_no_effect_of_objective_or_weights_with_fine_tuned_models() -> None:
    tuned = terms(subject_of("vit_base_patch16_224.mae", "ade20k", resolution=512, head="upernet"))
    frozen = terms(subject_of("vit_base_patch16_224.mae", "ade20k", resolution=512, regime="frozen", head="linear"))
    about = ("objective", "kind", "weights", "series x objective", "size x objective")
    shared = {key for key in tuned.keys() & frozen.keys() if key[0].startswith(about)}
    assert shared == set()
    assert ("objective, frozen", "mae") in frozen


def test_a_probe_moves_no_fine_tuned_prediction_of_its_objective() -> None:
    rows = [row("swin_tiny", 44.0), row("vit_base_patch16_224", 47.0, pretraining="mae"), row("swin_base", 48.0)]
    asked = subject_of("vit_base_patch16_224", "ade20k", resolution=512, head="upernet", pretraining="radio")
    probes = [
        row("vit_base_patch16_224", miou, pretraining="radio", regime="frozen", head="linear") for miou in (20.0, 55.0)
    ]
    low, high = (learn([*rows, probe]).predict([asked])[0].miou_percent for probe in probes)
    assert abs(high - low) < 1


def test_a_head_without_adapter_loses_with_labels_and_at_small_sizes() -> None:
    supervised = subject_of("swin_tiny", "ade20k", resolution=512, pretraining="supervised_in1k")
    more = subject_of("swin_tiny", "ade20k", resolution=512, pretraining="supervised_in21k")
    assert terms(supervised)["bare head x labels", "all"] == 1.0
    assert 0 < terms(more)["bare head x labels", "all"] < 1
    assert LABELS_LOSS > 0
    dense = terms(subject_of("vit_base_patch16_dinov3.lvd1689m", "ade20k", resolution=512, head="eomt"))
    assert not any(group == "bare head x labels" for group, _ in dense)
    assert ("size x bare head", "all") in dense
    adapted = terms(subject_of("swin_tiny", "ade20k", resolution=512, head="upernet"))
    assert not any("bare head" in group for group, _ in adapted)


def test_a_figure_with_luma_that_states_no_size_is_of_the_largest_that_any_row_is_about() -> None:
    figure = row(
        "eva02 (size not stated)", 59.7, provenance="published LUMA", head="luma", pretraining="eva02", height=None,
        width=None,
    )  # fmt: skip
    sizes = [
        row(f"eva02_{size}_patch14_224.mim_in22k", miou, pretraining="eva02")
        for size, miou in (("small", 50.0), ("large", 60.0))
    ]
    observed = observe([figure, *sizes], {})
    at = next(index for index, subject in enumerate(observed.subjects) if subject.head == "luma")
    subject = observed.subjects[at]
    assert subject.checkpoint.startswith("eva02_large")
    assert (subject.height, subject.width) == (512, 512)
    assert observed.noise_factor[at] > 2
