"""The loss of mask heads: against the plain formula, split in every way, and on inputs that nobody wishes for."""

from __future__ import annotations

import math

import loss_world
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_world import FEW_POINTS, STEP, criterion, label_maps, prediction
from torch import Tensor

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.errors import BuildError, DataError
from luma_cli.head.linear import PixelLogits
from luma_cli.head.parts import HeadOutput
from luma_cli.train import points
from luma_cli.train.criterion import LossParts, MaskCriterion, PixelCriterion, create_criterion


def value(loss: MaskCriterion, found: list[HeadOutput], labels: Tensor, samples: list[int]) -> LossParts:
    return loss(found, labels, loss.totals(labels), STEP, samples)


def gradients(total: Tensor, found: HeadOutput) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, tuple(found))


@settings(max_examples=15)
@given(
    st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.integers(1, 12), st.integers(4, 33), st.integers(0, 99)
)
def test_value_and_gradient_are_those_of_the_plain_formula(batch, num_queries, num_classes, mask_side, side, seed):
    """More segments than queries, one class, one-pixel masks and odd sizes are among the drawn cases."""
    labels = label_maps(batch, side, num_classes, seed)
    found = prediction(batch, num_queries, num_classes, mask_side, seed)
    samples = list(range(batch))
    parts = value(criterion(num_queries, num_classes), [found], labels, samples)
    expected = loss_world.plain_loss(found, labels, FEW_POINTS, samples)
    torch.testing.assert_close(parts.total, expected, rtol=1e-5, atol=1e-5)
    for ours, plain in zip(gradients(parts.total, found), gradients(expected, found), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


def test_parts_add_up_and_carry_no_gradient():
    parts = value(criterion(8, 4), [prediction(2, 8, 4, 8)], label_maps(2, 32, 4), [0, 1])
    torch.testing.assert_close(parts.total, 5 * parts.bce + 5 * parts.dice + 2 * parts.classes)
    assert parts.total.requires_grad
    assert not any(part.requires_grad for part in parts[1:])


def test_weights_and_points_are_those_of_the_recipe():
    recipe = Recipe(num_points=40, bce_weight=1, dice_weight=0.5, class_weight=0.25, no_object_weight=0.3)
    parts = value(criterion(8, 4, recipe), [prediction(2, 8, 4, 8)], label_maps(2, 32, 4), [0, 1])
    torch.testing.assert_close(parts.total, parts.bce + 0.5 * parts.dice + 0.25 * parts.classes)


def test_one_query_one_pixel_one_class():
    """A mask of one logit x under a label map of one class: at the centre x itself, less towards the border."""
    found = HeadOutput(torch.tensor([[[2.0, -1.0]]]), torch.full((1, 1, 1, 1), 1000.0))
    parts = value(criterion(1, 1), [found], torch.zeros(1, 4, 4, dtype=torch.uint8), [0])
    assert float(parts.classes) == pytest.approx(math.log(1 + math.exp(-3)), rel=1e-5)
    void = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    parts = value(criterion(1, 1), [found], void, [0])
    assert float(parts.classes) == pytest.approx(math.log(1 + math.exp(3)), rel=1e-5)
    assert float(parts.bce) == float(parts.dice) == 0


def test_zero_logits_have_known_losses():
    """x = 0 everywhere: BCE is log 2 whatever the mask, and Dice 1 - (sum t + 1) / (P / 2 + sum t + 1)."""
    found = HeadOutput(torch.zeros(1, 2, 3), torch.zeros(1, 2, 8, 8))
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[:, :, 8:] = 1
    parts = value(criterion(2, 2, Recipe(num_points=4000)), [found], labels, [0])
    assert float(parts.bce) == pytest.approx(math.log(2), rel=1e-5)
    assert float(parts.dice) == pytest.approx(0.5, abs=0.02)  # half of the points on each side, the border's less
    assert float(parts.classes) == pytest.approx(math.log(3), rel=1e-5)


def test_a_perfect_prediction_costs_nothing_and_void_is_negative():
    labels = torch.full((1, 32, 32), 255, dtype=torch.uint8)
    labels[:, :16] = 1
    masks = torch.full((1, 2, 32, 32), -50.0)
    masks[:, 0, :16] = 50
    found = HeadOutput(torch.tensor([[[-50.0, 50.0, -50.0], [-50.0, -50.0, 50.0]]]), masks)
    perfect = value(criterion(2, 2), [found], labels, [0])
    covering = value(criterion(2, 2), [HeadOutput(found.class_logits, masks.abs())], labels, [0])
    assert float(perfect.dice) < 0.1
    assert float(covering.bce) > 5 * float(perfect.bce)
    assert float(covering.dice) > 5 * float(perfect.dice)


@pytest.mark.parametrize(
    "split", [[[0], [1], [2], [3], [4]], [[0, 1, 2], [3, 4]], [[4, 2], [0], [3, 1]], [[3, 0, 4, 1, 2]]]
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_any_split_of_a_batch_gives_its_loss_and_gradient(split, ranks):
    """Micro-batches of any sizes in any order; over ranks the totals are shared out and the losses averaged."""
    labels = label_maps(5, 24, 6, ignored=0.3)
    labels[2] = 255
    found = prediction(5, 9, 6, 6)
    samples = [11, 5, 8, 70, 3]
    loss = criterion(9, 6)
    whole = value(loss, [found], labels, samples)
    totals = sum(loss.totals(labels[part]) for part in split) / ranks
    pieces = [
        loss(
            [HeadOutput(found.class_logits[part], found.mask_logits[part])],
            labels[part],
            totals,
            STEP,
            [samples[i] for i in part],
        )
        for part in split
    ]
    for name in LossParts._fields:
        total = sum(getattr(piece, name) for piece in pieces) / ranks
        torch.testing.assert_close(total, getattr(whole, name), rtol=1e-5, atol=1e-6)
    together = gradients(sum(piece.total for piece in pieces) / ranks, found)
    for ours, expected in zip(together, gradients(whole.total, found), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("at_once", [2, 8])
def test_images_done_together_as_on_a_gpu_give_the_same(monkeypatch, at_once):
    """Images with different numbers of segments, one without any."""
    labels = label_maps(5, 24, 6, ignored=0.3)
    labels[2] = 255
    labels[3, :, 4:] = 255
    found, samples = prediction(5, 4, 6, 6), [11, 5, 8, 70, 3]
    expected = value(criterion(4, 6), [found], labels, samples)
    monkeypatch.setattr(points, "_AT_ONCE_ON_CPU", at_once)
    parts = value(criterion(4, 6), [found], labels, samples)
    for ours, one_by_one in zip(parts, expected, strict=True):
        torch.testing.assert_close(ours, one_by_one, rtol=1e-5, atol=1e-6)
    for ours, one_by_one in zip(gradients(parts.total, found), gradients(expected.total, found), strict=True):
        torch.testing.assert_close(ours, one_by_one, rtol=1e-4, atol=1e-7)


def test_points_depend_on_step_sample_seed_and_prediction():
    labels = label_maps(1, 24, 4)
    found = prediction(1, 6, 4, 6)
    loss, totals = criterion(6, 4), criterion(6, 4).totals(labels)
    first = loss([found], labels, totals, 0, [0])
    other_seed = MaskCriterion(HeadConfig(num_queries=6, num_classes=4), FEW_POINTS, 99)
    assert torch.equal(first.total, loss([found], labels, totals, 0, [0]).total)
    assert first.bce != loss([found], labels, totals, 1, [0]).bce
    assert first.bce != loss([found], labels, totals, 0, [1]).bce
    assert first.bce != other_seed([found], labels, totals, 0, [0]).bce
    twice = loss([found, found], labels, totals, 0, [0])
    assert twice.bce != 2 * first.bce


def test_totals_count_matched_masks_and_class_weights():
    labels = torch.full((3, 8, 8), 255, dtype=torch.uint8)
    labels[0, 0, :5] = torch.arange(5)
    labels[1, 0, 0] = 4
    assert criterion(4, 5).totals(labels).tolist() == pytest.approx([5, 5 + 7 * 0.1])
    assert criterion(4, 5).totals(labels).dtype == torch.float64


def test_fewer_than_one_mask_per_rank_counts_as_one():
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    found = prediction(1, 3, 2, 4)
    loss = criterion(3, 2)
    whole = loss([found], labels, loss.totals(labels), 0, [0])
    halved = loss([found], labels, loss.totals(labels) / 2, 0, [0])
    assert torch.equal(whole.bce, halved.bce)
    torch.testing.assert_close(2 * whole.classes, halved.classes)


def test_nothing_labelled_leaves_classes_alone():
    labels = torch.full((2, 8, 8), 255, dtype=torch.uint8)
    found = prediction(2, 3, 2, 4)
    parts = value(criterion(3, 2), [found], labels, [0, 1])
    of_classes, of_masks = gradients(parts.total, found)
    assert float(parts.bce) == float(parts.dice) == 0 < float(parts.classes)
    assert of_classes.abs().max() > 0
    assert of_masks.shape == found.mask_logits.shape
    assert not of_masks.any()


def test_weightless_queries_without_segments_cost_nothing():
    labels = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    recipe = Recipe(num_points=40, no_object_weight=0)
    assert not value(criterion(3, 2, recipe), [prediction(1, 3, 2, 4)], labels, [0]).total.detach()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["one pixel", "one mask", "all masks", "one class", "all classes"])
def test_logits_that_are_not_finite_make_the_total_so(bad, where):
    found = HeadOutput(*(logits.detach().clone() for logits in prediction(2, 6, 3, 8)))
    parts = {
        "one pixel": found.mask_logits[1, 5, 7, 7:],
        "one mask": found.mask_logits[1, 5],
        "all masks": found.mask_logits,
        "one class": found.class_logits[0, 0, :1],
        "all classes": found.class_logits,
    }
    parts[where].fill_(bad)
    assert not value(criterion(6, 3), [found], label_maps(2, 16, 3), [0, 1]).total.isfinite()


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("sign", ["random", "above", "below"])
def test_huge_logits_give_finite_loss_and_gradient(size, sign):
    drawn = prediction(2, 6, 3, 8)
    signs = [{"random": x.sign(), "above": torch.ones_like(x), "below": -torch.ones_like(x)}[sign] for x in drawn]
    found = HeadOutput(*((size * each).detach().requires_grad_() for each in signs))
    parts = value(criterion(6, 3), [found], label_maps(2, 16, 3), [0, 1])
    assert all(part.isfinite() for part in parts)
    assert all(gradient.isfinite().all() for gradient in gradients(parts.total, found))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_it_is(dtype):
    """Under autocast too: the loss is that of the same numbers in float32, the gradient comes in their own dtype."""
    half = HeadOutput(*(x.detach().to(dtype).requires_grad_() for x in prediction(2, 6, 3, 8)))
    full = HeadOutput(*(x.detach().float().requires_grad_() for x in half))
    labels = label_maps(2, 16, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = value(criterion(6, 3), [half], labels, [0, 1])
    expected = value(criterion(6, 3), [full], labels, [0, 1])
    assert found.total.dtype == torch.float32
    assert torch.equal(found.total, expected.total)
    for ours, wanted in zip(gradients(found.total, half), gradients(expected.total, full), strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, wanted.to(dtype))


def test_settings_of_matrix_products_do_not_matter_and_come_back():
    found, labels = prediction(2, 6, 3, 8), label_maps(2, 16, 3)
    expected = value(criterion(6, 3), [found], labels, [0, 1]).total
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(value(criterion(6, 3), [found], labels, [0, 1]).total, expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_gradient_of_a_scaled_loss_is_scaled():
    found, labels = prediction(1, 4, 2, 8), label_maps(1, 16, 2)
    parts = value(criterion(4, 2), [found], labels, [0])
    plain = torch.autograd.grad(parts.total, found.mask_logits, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(parts.total * 1024, found.mask_logits)[0], 1024 * plain)


def test_a_label_that_is_no_class_is_refused():
    labels = label_maps(2, 16, 3)
    labels[1, 0, 0] = 7
    with pytest.raises(DataError, match="sample 42 has label 7, expected 0 to 2 or 255"):
        value(criterion(6, 3), [prediction(2, 6, 3, 8)], labels, [9, 42])


def test_the_head_decides_which_loss():
    assert isinstance(create_criterion(HeadConfig(), Recipe(), 0), MaskCriterion)
    assert isinstance(create_criterion(HeadConfig(name="eomt"), Recipe(), 0), MaskCriterion)
    assert isinstance(create_criterion(HeadConfig(name="linear"), Recipe(), 0), PixelCriterion)
    with pytest.raises(BuildError, match="none"):
        create_criterion(HeadConfig(name="none"), Recipe(), 0)


class TestPixels:
    """The loss of a linear probe."""

    def test_is_the_mean_over_labelled_pixels(self):
        labels = label_maps(3, 20, 4, ignored=0.3)
        logits = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
        loss = PixelCriterion()
        parts = loss([PixelLogits(logits)], labels, loss.totals(labels), 0, [0, 1, 2])
        resized = torch.nn.functional.interpolate(logits, (20, 20), mode="bilinear")
        expected = torch.nn.functional.cross_entropy(resized, labels.long(), ignore_index=255)
        torch.testing.assert_close(parts.total, expected)
        assert torch.equal(parts.classes, parts.total)
        assert parts.bce == parts.dice == 0
        for ours, plain in zip(*(torch.autograd.grad(each, logits) for each in (parts.total, expected)), strict=True):
            torch.testing.assert_close(ours, plain)

    def test_any_split_gives_the_same(self):
        labels = label_maps(3, 20, 4, ignored=0.3)
        logits = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
        loss = PixelCriterion()
        totals = loss.totals(labels)
        whole = loss([PixelLogits(logits)], labels, totals, 0, [0, 1, 2]).total
        parts = [loss([PixelLogits(logits[part])], labels[part], totals, 0, part).total for part in ([2], [0, 1])]
        torch.testing.assert_close(sum(parts), whole)

    def test_nothing_labelled_is_zero(self):
        labels = torch.full((1, 8, 8), 255, dtype=torch.uint8)
        logits = torch.ones(1, 4, 2, 2, requires_grad=True)
        loss = PixelCriterion()
        total = loss([PixelLogits(logits)], labels, loss.totals(labels), 0, [0]).total
        assert not total.detach()
        assert not torch.autograd.grad(total, logits)[0].any()
