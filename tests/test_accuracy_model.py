from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from accuracy_world import own, row, simulated, some_rows

from luma_cli.accuracy.effects import REFERENCE_SD
from luma_cli.accuracy.model import LearnedModel, learn
from luma_cli.accuracy.subjects import Subject, subject_of, subject_of_row
from luma_cli.evidence.evidence import Evidence, load_reference

SIDES = (128, 160, 224, 256, 320, 384, 448, 512)


@pytest.fixture(scope="module")
def shipped() -> LearnedModel:
    return learn(load_reference())


@pytest.fixture(scope="module")
def base() -> list[Evidence]:
    """Sizes of two series under UPerNet and EoMT, on ADE20K."""
    swin = zip(("tiny", "small", "base", "large"), (44.5, 47.6, 48.1, 52.0), strict=True)
    convnext = zip(("tiny", "small", "base", "large"), (46.0, 48.7, 49.1, 53.2), strict=True)
    vit = zip(("small", "base", "large"), (46.0, 53.0, 57.0), strict=True)
    return [
        *(row(f"swin_{size}", miou) for size, miou in swin),
        *(row(f"convnext_{size}", miou) for size, miou in convnext),
        *(row(f"vit_{size}_patch14_dinov2", miou, head="eomt", pretraining="dinov2", pretraining_data="LVD-142M",
              source="EoMT") for size, miou in vit),
        row("vit_base_patch16", 48.0, pretraining="mae", pretraining_data="ImageNet-1k", source="MAE"),
        row("vit_base_patch16", 44.0, head="eomt", source="EoMT"),
    ]  # fmt: skip


def miou(model: LearnedModel, subject: Subject) -> float:
    return model.predict([subject])[0].miou_percent


def width(model: LearnedModel, subject: Subject) -> float:
    low, high = model.predict([subject])[0].interval_80
    return high - low


# Predictions and draws


def test_predictions_are_the_medians_and_spreads_of_the_draws(shipped: LearnedModel) -> None:
    names = ("swin_tiny_patch4_window7_224.ms_in1k", "vit_base_patch16_dinov3.lvd1689m", "resnet50.a1_in1k", "my_net_b")
    subjects = [subject_of(name, "ade20k", resolution=side) for name in names for side in (384, 512, 768)]
    predictions, draws = shipped.predict(subjects), shipped.draws(subjects)
    assert draws.shape == (2000, len(subjects))
    assert draws.dtype == np.float64
    for prediction, column in zip(predictions, draws.T, strict=True):
        assert np.median(column) == pytest.approx(prediction.miou_percent, abs=0.1 * prediction.sd)
        # The interval is of one run, the draws are of the expected mIoU: they are narrower by the noise of a run.
        assert 0.8 * prediction.sd < column.std() < 1.05 * prediction.sd


def test_a_subject_is_the_same_alone_and_among_others(shipped: LearnedModel) -> None:
    subjects = [
        subject_of(name, "ade20k", resolution=side)
        for name in ("convnext_base.fb_in22k", "nobody_knows_s")
        for side in (512, 224)
    ]
    together, drawn = shipped.predict(subjects), shipped.draws(subjects, seed=5)
    for index, subject in enumerate(subjects):
        alone = shipped.predict([subject])[0]
        assert alone.miou_percent == pytest.approx(together[index].miou_percent, abs=1e-9)
        assert alone.interval_90 == pytest.approx(together[index].interval_90, abs=1e-4)
        assert np.allclose(shipped.draws([subject], seed=5)[:, 0], drawn[:, index], atol=1e-4)


def test_one_backbone_at_two_sizes_is_drawn_together(shipped: LearnedModel) -> None:
    first, second, other = shipped.draws(
        [
            subject_of("nobody_knows_s", "ade20k", resolution=512),
            subject_of("nobody_knows_s", "ade20k", resolution=640),
            subject_of("another_stranger_s", "ade20k", resolution=512),
        ]
    ).T
    assert np.corrcoef(first, second)[0, 1] > 0.85
    assert np.corrcoef(first, other)[0, 1] < 0.7


def test_seeds_change_what_nobody_has_seen_alone(shipped: LearnedModel) -> None:
    seen = subject_of_row(load_reference()[0])
    strange = subject_of("nobody_knows_s", "ade20k", resolution=512)
    first, second = shipped.draws([seen, strange], 500, seed=0), shipped.draws([seen, strange], 500, seed=1)
    assert np.array_equal(first[:, 0], second[:, 0])
    assert not np.array_equal(first[:, 1], second[:, 1])


def test_nothing_is_asked_and_nothing_answered(shipped: LearnedModel) -> None:
    assert shipped.predict([]) == []
    assert shipped.draws([], 7).shape == (7, 0)


def test_no_more_draws_than_are_kept(shipped: LearnedModel) -> None:
    assert shipped.draws([subject_of("swin_tiny", "ade20k")], 5000).shape == (2000, 1)


def test_intervals_hold_each_other(shipped: LearnedModel) -> None:
    for each in shipped.predict([subject_of_row(found) for found in some_rows(20)]):
        lows = [each.interval_90[0], each.interval_80[0], each.interval_50[0], each.miou_percent]
        highs = [each.miou_percent, each.interval_50[1], each.interval_80[1], each.interval_90[1]]
        assert lows == sorted(lows)
        assert highs == sorted(highs)
        assert lows[0] >= 0
        assert highs[-1] <= 100


# Little or no evidence


@pytest.mark.parametrize("rows", [[], [row()]], ids=["no row", "one row"])
def test_with_next_to_no_evidence_all_is_open(rows: list[Evidence]) -> None:
    model = learn(rows)
    other = subject_of("convnext_base", "cityscapes", resolution=(512, 1024))
    prediction = model.predict([other])[0]
    draws = model.draws([other])
    assert prediction.extrapolated
    assert prediction.reason == "no evidence on cityscapes"
    assert prediction.support.line == "no result of its series on this dataset"
    assert prediction.interval_80[1] - prediction.interval_80[0] > 40
    assert np.isfinite(draws).all()
    assert 0 <= draws.min() <= draws.max() <= 100


def test_one_row_tells_of_itself() -> None:
    found = learn([row(miou=45.0)]).predict([subject_of_row(row())])[0]
    assert found.miou_percent == pytest.approx(45.0, abs=0.2)


def test_a_dataset_nobody_measured(shipped: LearnedModel) -> None:
    prediction = shipped.predict([subject_of("swin_tiny", "pascal", resolution=512)])[0]
    assert prediction.reason == "no evidence on pascal"
    assert prediction.interval_90[0] < 20
    assert prediction.interval_90[1] > 85


def test_a_dataset_with_frozen_probes_alone(base: list[Evidence]) -> None:
    probe = row("vit_base_patch16", 40.0, dataset="cityscapes", regime="frozen", head="linear", pretraining="mae")
    model = learn([*base, probe])
    tuned = subject_of("vit_base_patch16", "cityscapes", resolution=512, pretraining="mae", head="upernet")
    assert "no fine-tuned evidence on cityscapes" in model.predict([tuned])[0].reason


def test_an_objective_with_frozen_probes_alone_is_wide_and_says_so(base: list[Evidence]) -> None:
    probe = row("vit_base_patch16", 40.0, regime="frozen", head="linear", pretraining="franca")
    model = learn([*base, probe])
    tuned, seen = (
        subject_of("vit_base_patch16", "ade20k", resolution=512, pretraining=name, head="upernet")
        for name in ("franca", "mae")
    )
    assert "no fine-tuned evidence for pretraining franca" in model.predict([tuned])[0].reason
    assert width(model, tuned) > width(model, seen)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody_knows", "its size is not known"),
        ("nobody_knows_b", "no evidence for the series nobody_knows_b"),
        ("convnext_base", ""),
    ],
)
def test_an_unknown_backbone_says_so(shipped: LearnedModel, name: str, reason: str) -> None:
    subject = subject_of(name, "ade20k", resolution=512, pretraining="supervised_in1k", head="upernet")
    prediction = shipped.predict([subject])[0]
    assert reason in prediction.reason
    assert prediction.extrapolated == bool(reason)


def test_a_size_that_is_not_known_is_wider(shipped: LearnedModel) -> None:
    known, unknown = (subject_of(name, "ade20k", resolution=512) for name in ("nobody_knows_b", "nobody_knows"))
    assert width(shipped, unknown) > 1.3 * width(shipped, known)


# What evidence moves


def shift(base: Sequence[Evidence], more: Sequence[Evidence], subject: Subject) -> float:
    return miou(learn([*base, *more]), subject) - miou(learn(base), subject)


def test_one_row_moves_an_objective_less_than_twenty(base: list[Evidence]) -> None:
    target = subject_of("vit_large_patch16_224", "ade20k", resolution=512, pretraining="ibot", head="upernet")
    better = [row("vit_base_patch16", 54.0, pretraining="ibot", source=f"paper {number}") for number in range(20)]
    one, twenty = shift(base, better[:1], target), shift(base, better, target)
    assert 0 < one < twenty


def test_an_unseen_series_is_wider_than_a_seen_one(base: list[Evidence]) -> None:
    model = learn(base)
    seen, unseen = (
        subject_of(name, "ade20k", resolution=512, pretraining="supervised_in1k", head="upernet")
        for name in ("swin_base_patch4_window12_384", "focalnet_base_lrf")
    )
    assert width(model, unseen) > width(model, seen)


def test_a_row_narrows_the_interval_of_its_backbone(base: list[Evidence]) -> None:
    subject = replace(subject_of_row(row("focalnet_base_lrf")), source="somebody else")
    before = learn(base)
    after = learn([*base, row("focalnet_base_lrf", 49.0)])
    assert width(after, subject) < width(before, subject)
    assert before.predict([subject])[0].extrapolated
    assert not after.predict([subject])[0].extrapolated


def test_frozen_rows_move_fine_tuned_predictions_less_than_fine_tuned_ones(base: list[Evidence]) -> None:
    target = subject_of("vit_large_patch16_224", "ade20k", resolution=512, pretraining="ibot", head="upernet")
    ibot = row("vit_small_patch16", pretraining="ibot")
    probe = replace(ibot, regime="frozen", head="linear")
    # The same part of the error less in both regimes: 15 %.
    frozen, tuned = (
        miou(learn([*base, replace(each, miou_percent=100 - 0.85 * error)]), target)
        - miou(learn([*base, replace(each, miou_percent=100 - error)]), target)
        for each, error in ((probe, 65.0), (ibot, 52.0))
    )
    assert 0 < frozen < tuned / 2


# LUMA's level


def test_luma_is_eomt_until_own_runs_exist(base: list[Evidence]) -> None:
    model = learn(base)
    luma, eomt = (
        subject_of("vit_base_patch14_dinov2.lvd142m", "ade20k", resolution=512, head=head) for head in ("luma", "eomt")
    )
    assert miou(model, luma) == pytest.approx(miou(model, eomt), abs=1e-9)
    assert width(model, luma) > width(model, eomt)
    assumed = f"LUMA is assumed to score like EoMT, +- {100 * REFERENCE_SD:.0f}% of 100 - mIoU"
    assert model.scale_note == f"on the EoMT scale, no LUMA run seen ({assumed})"


def test_own_runs_move_lumas_level_and_not_eomts(base: list[Evidence]) -> None:
    names = ("vit_small_patch14_dinov2.lvd142m", "vit_base_patch14_dinov2.lvd142m", "vit_large_patch14_dinov2.lvd142m")
    luma, eomt = (subject_of(names[1], "ade20k", resolution=512, head=head) for head in ("luma", "eomt"))
    before = learn(base)
    runs = [own(name, points) for name, points in zip(names, (43.0, 50.0, 54.0), strict=True)]
    after = learn([*base, *runs])
    assert miou(after, luma) - miou(before, luma) < -1.5
    assert abs(miou(after, eomt) - miou(before, eomt)) < 1.0
    assert width(after, luma) < width(before, luma)
    assert after.scale_note == "on the scale of 3 own LUMA runs"


def test_an_own_run_is_reproduced(base: list[Evidence]) -> None:
    model = learn([*base, own("vit_base_patch14_dinov2.lvd142m", 51.0)])
    prediction = model.predict([subject_of("vit_base_patch14_dinov2.lvd142m", "ade20k", resolution=512)])[0]
    assert prediction.miou_percent == pytest.approx(51.0, abs=0.4)
    assert prediction.support.line.startswith("1 own run")


def test_runs_far_off_the_reference_say_so(base: list[Evidence]) -> None:
    name = "vit_base_patch14_dinov2.lvd142m"
    assert learn([*base, own(name, 52.0)]).scale_note == "on the scale of 1 own LUMA run"
    runs = [own(each, 30.0) for each in (name, "vit_small_patch14_dinov2.lvd142m", "vit_large_patch14_dinov2.lvd142m")]
    assert "more error (100 - mIoU) than EoMT's" in learn([*base, *runs]).scale_note


def test_a_grid_of_own_runs_tells_the_shape_in_resolution(shipped: LearnedModel) -> None:
    """Error with an additive part of the tokens, as `luma scaling` fits it: no power law, and yet followed."""
    names = [f"vit_{size}_patch16_dinov3.lvd1689m" for size in ("small", "base", "large")]
    sides = (224, 384, 512, 640, 768, 1024)
    truth = {
        (name, side): 70.0 - 12.0 * (millions / 100) ** -0.25 - 5.0 * (side / 512) ** -1.8
        for name, millions in zip(names, (21.6, 85.6, 303.1), strict=True)
        for side in sides
    }
    runs = [own(name, miou, height=side, width=side) for (name, side), miou in truth.items()]
    model = learn([*load_reference(), *runs])
    subjects = [subject_of(name, "ade20k", resolution=side) for name, side in truth]
    errors = [found.miou_percent - miou for found, miou in zip(model.predict(subjects), truth.values(), strict=True)]
    assert np.mean(np.abs(errors)) < 0.5
    middle = [error for error, (_, side) in zip(errors, truth, strict=True) if side == 512]
    assert np.mean(middle) == pytest.approx(0.0, abs=0.4)


def test_intervals_cover_a_grid_of_own_runs_half_of_which_was_seen() -> None:
    """In worlds whose error is a sum of power laws, which the model is not."""
    generator = np.random.default_rng(0)
    sizes = {f"vit_{size}_patch16_dinov3.lvd1689m": millions for size, millions in (
        ("small", 21.6), ("base", 85.6), ("large", 303.1), ("huge_plus", 840.0))}  # fmt: skip
    cells = [(name, side) for name in sizes for side in (224, 384, 512, 640, 768, 1024)]
    inside = []
    for _ in range(4):
        a, b, big, fine = generator.uniform((0.15, 0.3, 8, 3), (0.35, 0.8, 14, 8))
        truth = {
            (name, side): 56 + big + fine - big * (sizes[name] / 85.6) ** -a - fine * (side / 512) ** (-2 * b)
            for name, side in cells
        }
        runs = {cell: truth[cell] + 0.25 * generator.standard_normal() for cell in cells}
        seen = [cells[index] for index in generator.permutation(len(cells))[:12]]
        rows = [own(name, float(runs[name, side]), height=side, width=side) for name, side in seen]
        model = learn([*load_reference()[::2], *rows])
        left = [cell for cell in cells if cell not in seen]
        found = model.predict([subject_of(name, "ade20k", resolution=side) for name, side in left])
        inside += [
            each.interval_80[0] <= runs[cell] <= each.interval_80[1] for each, cell in zip(found, left, strict=True)
        ]
    assert 0.65 < np.mean(inside) < 0.97


def test_short_trials_do_not_lower_full_trainings(base: list[Evidence]) -> None:
    names = ("vit_small_patch14_dinov2.lvd142m", "vit_base_patch14_dinov2.lvd142m", "vit_large_patch14_dinov2.lvd142m")
    trials = [
        own(name, points, recipe="measured here: recipe ade20k changed", schedule="500 iters")
        for name, points in zip(names, (8.0, 12.0, 15.0), strict=True)
    ]
    luma = subject_of(names[1], "ade20k", resolution=512)
    model = learn([*base, *trials])
    assert abs(shift(base, trials, luma)) < 2.5
    assert model.scale_note.startswith("on the EoMT scale")


def test_trials_of_one_recipe_tell_how_backbones_compare(base: list[Evidence]) -> None:
    first, second = "convnext_base.fb_in22k", "swin_base_patch4_window7_224.ms_in22k"
    trials = [
        own(name, points, recipe="measured here: recipe ade20k changed", schedule="2000 iters")
        for name, points in ((first, 30.0), (second, 34.0))
    ]
    one, other = (subject_of(name, "ade20k", resolution=512) for name in (first, second))
    assert shift(base, trials, other) > shift(base, trials, one)


# Slips


@pytest.mark.parametrize("slip", [0.453, 2.0, 99.0])
def test_a_slip_does_not_drag_its_relatives_along(base: list[Evidence], slip: float) -> None:
    target = subject_of("swin_small", "ade20k", resolution=512, pretraining="supervised_in1k", head="upernet")
    assert abs(shift(base, [row("swin_tiny", slip, source="an import")], target)) < 0.5


def test_many_slips_do_not_either(base: list[Evidence]) -> None:
    target = subject_of("swin_small", "ade20k", resolution=512, pretraining="supervised_in1k", head="upernet")
    slips = [row(f"convnext_{size}", points, source="an import") for size, points in (("tiny", 0.4), ("base", 0.5))]
    assert abs(shift(base, [*slips, row("swin_base", 0.45, source="an import")], target)) < 2.0


# Size and resolution


@pytest.mark.parametrize("dataset", ["ade20k", "cityscapes"])
@pytest.mark.parametrize("name", ["vit_base_patch16_dinov3", "swin_tiny_patch4_window7_224", "nobody_knows_b"])
def test_fewer_pixels_than_usual_lower_miou(shipped: LearnedModel, dataset: str, name: str) -> None:
    found = shipped.predict([subject_of(name, dataset, resolution=side) for side in SIDES])
    mious = [each.miou_percent for each in found]
    assert mious == sorted(mious)
    assert mious[-1] - mious[2] > 1.0  # 224 px


@pytest.mark.parametrize("dataset", ["ade20k", "cityscapes"])
@pytest.mark.parametrize(
    ("names", "pretraining"),
    [
        (
            (
                "vit_small_patch16_dinov3",
                "vit_base_patch16_dinov3",
                "vit_large_patch16_dinov3",
                "vit_huge_plus_patch16_dinov3",
            ),
            "dinov3",
        ),
        (("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224"), "dinov2"),
        (("swin_tiny", "swin_small", "swin_base", "swin_large"), "supervised_in21k"),
        (("convnext_tiny", "convnext_small", "convnext_base", "convnext_large", "convnext_xlarge"), "supervised_in21k"),
        (("resnet18", "resnet34", "resnet50", "resnet101"), "supervised_in1k"),
    ],
)
def test_larger_backbones_of_a_series_are_no_worse(
    shipped: LearnedModel, dataset: str, names: Sequence[str], pretraining: str
) -> None:
    subjects = [subject_of(name, dataset, resolution=512, pretraining=pretraining) for name in names]
    mious = [each.miou_percent for each in shipped.predict(subjects)]
    assert mious == sorted(mious)


def test_no_more_is_gained_beyond_the_largest_published_crop(shipped: LearnedModel) -> None:
    largest, beyond = shipped.predict([subject_of("swin_tiny", "ade20k", resolution=side) for side in (1280, 9999)])
    assert beyond.miou_percent == largest.miou_percent
    assert beyond.extrapolated


# Effects


def test_effects_are_largest_first_and_the_protocol_last(shipped: LearnedModel) -> None:
    effects = shipped.effects(subject_of("vit_large_patch16_dinov3.lvd1689m", "ade20k", resolution=512))
    assert effects[-1].name == "head and protocol"
    sizes = [abs(each.points) for each in effects[:-1]]
    assert sizes == sorted(sizes, reverse=True)
    assert next(each for each in effects if each.name == "size").points > 0
    assert all(each.sd_points < 5 for each in effects)  # the level of a regime is no one's property


def test_low_resolution_costs_points(shipped: LearnedModel) -> None:
    found = {
        side: {each.name: each.points for each in shipped.effects(subject_of("swin_tiny", "ade20k", resolution=side))}
        for side in (224, 512)
    }
    assert found[224]["resolution"] < -1
    assert found[512]["resolution"] == pytest.approx(0, abs=1e-9)


# Honesty


def test_intervals_cover_unseen_rows_of_worlds_drawn_from_the_model() -> None:
    """Six worlds on the backbones, heads and sources of real rows: every fourth is predicted from the others."""
    rows = [each for each in load_reference() if each.regime == "fine-tuned"][::4]
    inside = {50: 0, 80: 0, 90: 0}
    total = 0
    for seed in range(6):
        world = simulated(rows, seed)
        model = learn([each for index, each in enumerate(world) if index % 4])
        unseen = world[::4]
        for each, found in zip(unseen, model.predict([subject_of_row(each) for each in unseen]), strict=True):
            total += 1
            for level in inside:
                low, high = getattr(found, f"interval_{level}")
                inside[level] += low <= each.miou_percent <= high
    shares = {level: count / total for level, count in inside.items()}
    assert total > 250
    assert 0.42 < shares[50] < 0.60
    assert 0.73 < shares[80] < 0.87
    assert 0.84 < shares[90] < 0.96
