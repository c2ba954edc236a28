"""Augmentation: EoMT's ranges and chances, and to the bit what torchvision's classes do with one mask per class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import kstest
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from luma_cli.catalogue.datasets import IGNORED, Labels
from luma_cli.catalogue.recipes import Augmentation
from luma_cli.data import augment as module
from luma_cli.data.augment import Change, augment, change_image, change_labels, draw_change

USUAL = Augmentation()
DRAWS = 4000


def picture(seed: int, height: int, width: int) -> tuple[NDArray[np.uint8], Labels]:
    """Smooth noise and blocks of up to seven classes, with pixels that do not count."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
    image = coarse.repeat(6, 0).repeat(6, 1)[:height, :width] // 2 + rng.integers(0, 128, (height, width, 3), np.uint8)
    values = rng.integers(0, 8, (height // 11 + 1, width // 11 + 1), dtype=np.uint8)
    values[values == 7] = IGNORED
    return np.ascontiguousarray(image), np.ascontiguousarray(values.repeat(11, 0).repeat(11, 1)[:height, :width])


def rounded(change: Change) -> Change:
    """The same with factors that are float32 numbers, as ColorJitter makes of those that it is given."""
    names = ("brightness", "contrast", "saturation", "hue")
    return replace(
        change,
        **{name: float(np.float32(value)) for name in names if (value := getattr(change, name)) is not None},
    )


def by_torchvision(image: NDArray[np.uint8], masks: Tensor, change: Change, resolution: int) -> tuple[Tensor, Tensor]:
    """The change by torchvision's own classes, in EoMT's order, on the whole image and binary masks [M, H, W]."""
    pixels = tv_tensors.Image(torch.from_numpy(image).permute(2, 0, 1))
    left: Tensor = tv_tensors.Mask(masks)
    contrast = [] if change.contrast is None else [v2.ColorJitter(contrast=(change.contrast,) * 2)]
    steps: list[v2.Transform] = []
    if change.brightness is not None:
        steps.append(v2.ColorJitter(brightness=(change.brightness,) * 2))
    steps += contrast if change.contrast_first else []
    if change.saturation is not None:
        steps.append(v2.ColorJitter(saturation=(change.saturation,) * 2))
    if change.hue is not None:
        steps.append(v2.ColorJitter(hue=(change.hue,) * 2))
    steps += [] if change.contrast_first else contrast
    steps.append(v2.RandomHorizontalFlip(p=float(change.flip)))
    steps.append(v2.Resize([change.height, change.width]))
    steps.append(v2.Pad([0, 0, max(0, resolution - change.width), max(0, resolution - change.height)]))
    pixels, left = v2.Compose(steps)(pixels, left)
    box = {"top": change.top, "left": change.left, "height": resolution, "width": resolution}
    crop = v2.RandomCrop(resolution)
    return tuple(crop.transform(each, {"needs_pad": False, "needs_crop": True, **box}) for each in (pixels, left))


@given(st.integers(0, 2**32), st.integers(20, 150), st.integers(20, 150))
@settings(max_examples=60)
def test_equals_torchvision_with_one_mask_per_class(seed: int, height: int, width: int) -> None:
    image, labels = picture(seed, height, width)
    classes = [value for value in np.unique(labels) if value != IGNORED]
    masks = torch.stack([torch.from_numpy(labels == value) for value in classes])
    change = rounded(draw_change(np.random.default_rng(seed), labels.shape, 64, USUAL))
    expected_image, expected_masks = by_torchvision(image, masks, change, 64)
    assert torch.equal(change_image(image, change, 64), expected_image.as_subclass(Tensor))
    changed = change_labels(labels, change, 64)
    for value, mask in zip(classes, expected_masks, strict=True):
        assert torch.equal(changed == int(value), mask.as_subclass(Tensor))
    assert ((changed == IGNORED) == ~expected_masks.any(0)).all()


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.0, 1.3, 2.0])
def test_sizes_are_those_of_scale_jitter(scale: float) -> None:
    """Sides agree, but where torchvision's float32 product lands on the other side of a whole number."""
    augmentation = replace(USUAL, scale_min=scale, scale_max=scale)
    jitter = v2.ScaleJitter((512, 512), (scale, scale))
    rng, off = np.random.default_rng(0), 0
    for _ in range(300):
        height, width = (int(side) for side in rng.integers(100, 3000, 2))
        change = draw_change(rng, (height, width), 512, augmentation)
        rows, columns = jitter.make_params([torch.empty(3, height, width)])["size"]
        assert abs(rows - change.height) <= 1
        assert abs(columns - change.width) <= 1
        exact = min(512 / height, 512 / width) * scale
        near_whole = min(abs(side * exact - round(side * exact)) for side in (height, width)) < 1e-3
        off += (rows, columns) != (change.height, change.width) and not near_whole
    assert off == 0


def test_ranges_and_chances() -> None:
    rng = np.random.default_rng(0)
    changes = [draw_change(rng, (400, 600), 512, USUAL) for _ in range(DRAWS)]
    drawn = {
        name: [value for change in changes if (value := getattr(change, name)) is not None]
        for name in ("brightness", "contrast", "saturation", "hue")
    }
    middle = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
    for name, values in drawn.items():
        spread = getattr(USUAL, name)
        assert_share(len(values), 0.5)
        assert kstest(values, "uniform", (middle[name] - spread, 2 * spread)).pvalue > 1e-3
    assert_share(sum(change.flip for change in changes), 0.5)
    assert_share(sum(change.contrast_first for change in changes), 0.5)
    assert_share(sum(change.hue is not None and change.contrast is not None for change in changes), 0.25)
    scales = [change.width / 512 for change in changes]
    assert kstest(scales, "uniform", (0.5, 1.5)).pvalue > 1e-3, "the longer side just fits at a scale of 1"
    for side, place in (("width", "left"), ("height", "top")):
        rooms = [(getattr(change, side) - 512, getattr(change, place)) for change in changes]
        assert all(0 <= left <= max(0, room) for room, left in rooms)
        assert {left == room for room, left in rooms if room == 1} != {False}, "the last place occurs"
        assert kstest([(left + 0.5) / (room + 1) for room, left in rooms if room > 50], "uniform").pvalue > 1e-3


def assert_share(count: int, expected: float) -> None:
    assert abs(count / DRAWS - expected) < 4 * (expected * (1 - expected) / DRAWS) ** 0.5


def test_chances_and_ranges_are_taken_from_the_augmentation() -> None:
    still = replace(USUAL, colour_chance=0.0, flip_chance=0.0, scale_min=1.0, scale_max=1.0)
    image, labels = picture(0, 48, 64)
    changed, classes = augment(image, labels, 64, still, 0)
    assert torch.equal(changed[:, :48], torch.from_numpy(image).permute(2, 0, 1))
    assert torch.equal(classes[:48], torch.from_numpy(labels))
    assert (changed[:, 48:] == 0).all()
    assert (classes[48:] == IGNORED).all()


def test_depends_on_its_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = picture(0, 90, 120)
    first = augment(image, labels, 64, USUAL, 5)
    state = torch.get_rng_state()
    torch.rand(7)
    np.random.rand(7)  # noqa: NPY002
    assert all(torch.equal(a, b) for a, b in zip(first, augment(image, labels, 64, USUAL, 5), strict=True))
    assert not torch.equal(first[0], augment(image, labels, 64, USUAL, 6)[0])
    torch.set_rng_state(state)
    augment(image, labels, 64, USUAL, 5)
    assert torch.equal(torch.get_rng_state(), state)


def test_contrast_is_computed_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = picture(0, 90, 120)
    threads = []
    usual = module.functional.adjust_contrast
    monkeypatch.setattr(
        module.functional,
        "adjust_contrast",
        lambda *given: [threads.append(torch.get_num_threads()), usual(*given)][1],
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        augment(image, labels, 64, replace(USUAL, colour_chance=1.0), 0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert threads == [1]


def test_input_is_left_as_it_was() -> None:
    image, labels = picture(0, 90, 120)
    kept = image.copy(), labels.copy()
    for seed in range(20):
        augment(image, labels, 64, USUAL, seed)
    assert np.array_equal(image, kept[0])
    assert np.array_equal(labels, kept[1])


def test_redrawn_until_a_labelled_pixel_is_left() -> None:
    image, labels = picture(0, 96, 96)
    labels[:] = IGNORED
    labels[:30, :30] = 3
    large = replace(USUAL, scale_min=2.0, scale_max=2.0)
    first_draws = [draw_change(np.random.Generator(np.random.Philox(seed)), (96, 96), 64, large) for seed in range(30)]
    assert any((change_labels(labels, change, 64) == IGNORED).all() for change in first_draws)
    assert all((augment(image, labels, 64, large, seed)[1] == 3).any() for seed in range(30))


@pytest.mark.parametrize(("labelled", "draws"), [(False, 1), (True, module.MAX_DRAWS)])
def test_redrawn_a_stated_number_of_times(labelled: bool, draws: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image, labels = picture(0, 96, 96)
    labels[:] = IGNORED
    labels[0, 0] = 3 if labelled else IGNORED
    made = []
    corner = replace(draw_change(np.random.default_rng(0), (96, 96), 64, USUAL), top=0, left=0, height=32, width=32)
    lost = replace(corner, flip=False, height=200, width=200, top=100, left=100)
    monkeypatch.setattr(module, "draw_change", lambda *_: [made.append(1), lost][1])
    changed, classes = augment(image, labels, 64, USUAL, 0)
    assert len(made) == draws
    assert changed.shape == (3, 64, 64)
    assert (classes == IGNORED).all()


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2), (1, 1), (64, 64), (2, 2)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    image, labels = np.full((*size, 3), 100, np.uint8), np.zeros(size, np.uint8)
    for seed in range(5):
        changed, classes = augment(image, labels, 64, USUAL, seed)
        assert (changed.shape, classes.shape) == ((3, 64, 64), (64, 64))
        assert (classes == 0).any()


def test_turns_are_torchvisions_and_leave_other_recipes_draws_alone() -> None:
    turning = replace(USUAL, vflip_chance=0.5, rotate_degrees=30.0)
    image, labels = picture(3, 60, 80)
    for seed in range(20):
        usual, change = (draw_change(np.random.default_rng(seed), labels.shape, 64, each) for each in (USUAL, turning))
        assert replace(change, upside_down=False, degrees=0.0) == usual
        assert -30 <= change.degrees <= 30
        still = replace(change, flip=False, height=60, width=80, top=0, left=0)
        expected = torch.from_numpy(labels)[None]
        if still.upside_down:
            expected = expected.flip(-2)
        expected = v2.functional.rotate(tv_tensors.Mask(expected), still.degrees, fill=IGNORED)
        assert torch.equal(change_labels(labels, still, 80)[:60, :80], expected[0].as_subclass(Tensor))
        pixels = change_image(image, still, 80)
        assert not pixels[:, :60, :80][:, change_labels(labels * 0, still, 80)[:60, :80] == IGNORED].float().mean() > 60
    assert (
        len({draw_change(np.random.default_rng(seed), labels.shape, 64, turning).upside_down for seed in range(20)})
        == 2
    )
