"""Our EoMT head gives what transformers' EoMT gives from the same weights, masked and unmasked, plain and rotated."""

from __future__ import annotations

import eomt_conversion
import pytest
import torch
from head_stand_in import images

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["plain", "dinov3"])
def pair(request):
    """(transformers' model, ours) with the same weights."""
    return getattr(eomt_conversion, request.param)()


def largest_difference(ours, theirs) -> float:
    """Over class and mask logits, relative to the largest logit (which is above 1)."""
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1)) for a, b in zip(ours, theirs, strict=True))


def set_probabilities(pair, values) -> None:
    theirs, ours = pair
    theirs.attn_mask_probs.copy_(torch.tensor(values))
    ours.head.anneal(values)


def predictions(ours):
    """All of ours, of rotations drawn like those of `eomt_conversion.all_predictions`."""
    torch.manual_seed(0)
    return ours.predictions(images())


def test_unmasked_inference(pair):
    theirs, ours = pair
    set_probabilities(pair, (0.0, 0.0, 0.0))
    with torch.no_grad():
        expected = theirs(images())
        found = ours(images())
    assert found.mask_logits.abs().max() > 1
    assert largest_difference(found, (expected.class_queries_logits, expected.masks_queries_logits)) < TOLERANCE


@pytest.mark.parametrize("training", [False, True])
def test_every_masked_prediction(pair, training):
    """All queries masked in every block: no draw is made, so that both sides see the same masks."""
    theirs, ours = pair
    set_probabilities(pair, (1.0, 1.0, 1.0))
    theirs.train(training)
    ours.train(training)
    with torch.no_grad():
        expected = eomt_conversion.all_predictions(theirs, images())
        found = predictions(ours)
        unmasked = ours(images())
    theirs.eval(), ours.eval()
    assert len(found) == len(expected) == 4
    for prediction, reference in zip(found, expected, strict=True):
        assert largest_difference(prediction, reference) < TOLERANCE
    assert largest_difference(unmasked, expected[-1]) > 10 * TOLERANCE  # the masks did something


def test_blocks_freed_one_after_the_other(pair):
    """In training their every joint block predicts, and a probability of 0 frees all its queries."""
    theirs, ours = pair
    set_probabilities(pair, (0.0, 1.0, 1.0))
    theirs.train()
    with torch.no_grad():
        ours.train()
        expected = eomt_conversion.all_predictions(theirs, images())
        found = predictions(ours)
    theirs.eval(), ours.eval()
    for prediction, reference in zip(found, expected, strict=True):
        assert largest_difference(prediction, reference) < TOLERANCE


def test_gradients_agree(pair):
    """One backward through all masked predictions: the gradient of queries and of the patch embedding."""
    theirs, ours = pair
    set_probabilities(pair, (1.0, 1.0, 1.0))
    theirs.zero_grad(), ours.zero_grad()
    expected = eomt_conversion.all_predictions(theirs, images())
    sum(part.square().mean() for prediction in expected for part in prediction).backward()
    sum(part.square().mean() for prediction in predictions(ours) for part in prediction).backward()
    assert largest_difference([ours.head.queries.weight.grad], [theirs.query.weight.grad]) < 1e-3
    class_token = ours.backbone.model.cls_token.grad
    assert largest_difference([class_token], [theirs.embeddings.cls_token.grad]) < 1e-3


def test_the_rotations_of_dinov3_are_drawn_in_training_alone():
    """Else the tests above would not see whether both scale them."""
    _, ours = eomt_conversion.dinov3()
    with torch.no_grad():
        still = predictions(ours)
        assert largest_difference(predictions(ours)[-1], still[-1]) == 0
        turned = predictions(ours.train())
    assert largest_difference(turned[-1], still[-1]) > 10 * TOLERANCE
