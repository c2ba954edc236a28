"""Given the same points, the loss is that of transformers' Mask2Former, of one prediction and of several."""

from __future__ import annotations

from collections.abc import Iterator

import loss_world
import pytest
import torch
from loss_world import STEP, binary_masks, criterion, label_maps, prediction
from transformers import Mask2FormerConfig
from transformers.models.mask2former import modeling_mask2former
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.parts import HeadOutput

BATCH, QUERIES, CLASSES, SIDE = 3, 12, 7, 48
RECIPE = Recipe(num_points=400)


def draws(predictions: list[HeadOutput], labels: torch.Tensor, samples: list[int]) -> Iterator[torch.Tensor]:
    """Our points in the order in which they ask for theirs, whose masks are sorted by query and not by class."""
    for number, found in enumerate(predictions):
        for sample in samples:
            yield loss_world.matching_points(RECIPE, sample, number)[None]
        candidates, fresh = [], []
        for image, sample in enumerate(samples):
            queries = queries_of(found, image, labels, sample, number)
            own = loss_world.loss_points(RECIPE, len(queries), sample, number)
            order = torch.tensor(queries).argsort()
            candidates.append(own[0][order])
            fresh.append(own[1][order])
        yield torch.cat(candidates)
        yield torch.cat(fresh)


def queries_of(found: HeadOutput, image: int, labels: torch.Tensor, sample: int, number: int) -> list[int]:
    points = loss_world.matching_points(RECIPE, sample, number)
    return loss_world.matched(found, image, labels[image], points)[0]


@pytest.mark.parametrize("count", [1, 3])
def test_losses_and_gradients(monkeypatch, count):
    labels = label_maps(BATCH, SIDE, CLASSES)
    predictions = [prediction(BATCH, QUERIES, CLASSES, 12, seed) for seed in range(count)]
    samples = [4, 9, 2]
    loss = criterion(QUERIES, CLASSES, RECIPE)
    ours = loss(predictions, labels, loss.totals(labels), STEP, samples)

    queue = iter(list(draws(predictions, labels, samples)))
    monkeypatch.setattr(modeling_mask2former.torch, "rand", lambda *shape, device=None: checked(next(queue), shape))
    theirs = Mask2FormerLoss(Mask2FormerConfig(num_labels=CLASSES, train_num_points=RECIPE.num_points), {})
    classes, masks = zip(*(binary_masks(each) for each in labels), strict=True)
    first, *others = [
        {"masks_queries_logits": p.mask_logits, "class_queries_logits": p.class_logits} for p in predictions
    ]
    found = theirs(**first, mask_labels=list(masks), class_labels=list(classes), auxiliary_predictions=others)
    monkeypatch.undo()

    for name, part in (("mask", ours.bce), ("dice", ours.dice), ("cross_entropy", ours.classes)):
        expected = sum(value for key, value in found.items() if key.startswith(f"loss_{name}"))
        torch.testing.assert_close(part, expected.detach(), rtol=1e-5, atol=1e-5)
    weights = {"mask": 5, "dice": 5, "cross": 2}
    total = sum(weights[key.split("_")[1]] * value for key, value in found.items())
    torch.testing.assert_close(ours.total, total, rtol=1e-5, atol=1e-5)
    inputs = [logits for each in predictions for logits in each]
    for mine, expected in zip(torch.autograd.grad(ours.total, inputs), torch.autograd.grad(total, inputs), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


def checked(points: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    assert points.shape == shape
    return points.clone()
