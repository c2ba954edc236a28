"""The segmenter can learn: four made-up images, remembered within 300 steps on a CPU (mask loss, dice and classes)."""

from __future__ import annotations

import torch
from torch.nn import functional

from luma_cli.head.config import HeadConfig
from luma_cli.head.segmenter import build

NUM_CLASSES = 3
SIDE = 64


def four_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Images [4, 3, 64, 64] with a rectangle of its own place and colour on a background; labels [4, 16, 16]."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(4, 3, SIDE, SIDE, generator=generator)
    labels = torch.zeros(4, SIDE, SIDE, dtype=torch.long)
    for index in range(4):
        rows = slice(8 * index, 8 * index + 24)
        label = 1 + index % 2
        labels[index, rows, 16:48] = label
        images[index, label, rows, 16:48] += 2
    return images, labels[:, 2::4, 2::4]


def loss(prediction, labels: torch.Tensor) -> torch.Tensor:
    """Query q answers for class q, so no matching is needed: 5 mask + 5 dice + 2 class, EoMT's weights."""
    wanted = functional.one_hot(labels, NUM_CLASSES).permute(0, 3, 1, 2).float()
    present = wanted.flatten(2).any(2)
    classes = torch.where(present, torch.arange(NUM_CLASSES), NUM_CLASSES)
    masks = prediction.mask_logits.flatten(2)
    wanted = wanted.flatten(2)
    mask = functional.binary_cross_entropy_with_logits(masks, wanted)
    chance = masks.sigmoid()
    dice = 1 - (2 * (chance * wanted).sum(2) + 1) / (chance.sum(2) + wanted.sum(2) + 1)
    return 5 * mask + 5 * dice.mean() + 2 * functional.cross_entropy(prediction.class_logits.transpose(1, 2), classes)


def miou_percent(prediction, labels: torch.Tensor) -> float:
    """Mean over classes of intersection over union, every query weighing in with its class scores."""
    scores = prediction.class_logits.softmax(-1)[..., :NUM_CLASSES]
    found = torch.einsum("bkc,bkhw->bchw", scores, prediction.mask_logits.sigmoid()).argmax(1)
    unions = [((found == c) | (labels == c)).sum() for c in range(NUM_CLASSES)]
    both = [((found == c) & (labels == c)).sum() for c in range(NUM_CLASSES)]
    return 100 * float(sum(b / u for b, u in zip(both, unions, strict=True)) / NUM_CLASSES)


def test_four_images_are_remembered():
    images, labels = four_images()
    segmenter = build("test_vit", SIDE, head=HeadConfig(num_queries=NUM_CLASSES, num_classes=NUM_CLASSES)).train()
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=2e-3)
    assert miou_percent(segmenter(images), labels) < 50
    for _ in range(300):
        value = loss(segmenter(images), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if value.item() < 0.3:
            break
    assert miou_percent(segmenter.eval()(images), labels) > 95
    assert all(parameter.grad is not None for parameter in segmenter.parameters())
