"""The segmenter can learn: four made-up images, remembered within 300 steps on a CPU, by the loss of the training."""

from __future__ import annotations

import pytest
import torch

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.segmenter import build
from luma_cli.train.criterion import create_criterion

NUM_CLASSES = 3
SIDE = 64
STEPS = 300


def four_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [4, 3, 64, 64] with a rectangle of its own place and colour on a background; labels uint8 [4, 64, 64]."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(4, 3, SIDE, SIDE, generator=generator)
    labels = torch.zeros(4, SIDE, SIDE, dtype=torch.uint8)
    for index in range(4):
        rows = slice(8 * index, 8 * index + 24)
        label = 1 + index % 2
        labels[index, rows, 16:48] = label
        images[index, label, rows, 16:48] += 2
    return images, labels


def miou_percent(prediction, labels: torch.Tensor) -> float:
    """Mean over classes of intersection over union at full size, every query weighing in with its class scores."""
    masks = torch.nn.functional.interpolate(prediction.mask_logits, (SIDE, SIDE), mode="bilinear")
    scores = prediction.class_logits.softmax(-1)[..., :NUM_CLASSES]
    found = torch.einsum("bkc,bkhw->bchw", scores, masks.sigmoid()).argmax(1)
    unions = [((found == c) | (labels == c)).sum() for c in range(NUM_CLASSES)]
    both = [((found == c) & (labels == c)).sum() for c in range(NUM_CLASSES)]
    return 100 * float(sum(b / u for b, u in zip(both, unions, strict=True)) / NUM_CLASSES)


@pytest.mark.parametrize("name", ["luma", "eomt"])
def test_four_images_are_remembered(name):
    """EoMT without masks, each of its predictions supervised."""
    images, labels = four_images()
    head = HeadConfig(name=name, num_queries=8, num_classes=NUM_CLASSES)
    segmenter = build("test_vit", SIDE, head=head).train()
    if name == "eomt":
        segmenter.head.anneal([0.0] * segmenter.head.plan.num_joint)
    criterion = create_criterion(head, Recipe(num_points=512), seed=0)
    totals = criterion.totals(labels)
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=2e-3)
    assert miou_percent(segmenter(images), labels) < 50
    for step in range(STEPS):
        parts = criterion(segmenter.predictions(images), labels, totals, step, range(4))
        optimizer.zero_grad()
        parts.total.backward()
        optimizer.step()
        if step % 20 == 19 and miou_percent(segmenter(images), labels) > 98:
            break
    assert miou_percent(segmenter.eval()(images), labels) > 95
    assert all(parameter.grad is not None for parameter in segmenter.parameters())
