"""What `heads.py` compares: LUMA, our EoMT and transformers' EoMT on ViTs of one shape, with one training step for all.

The ViT is DINOv2's with four registers and LayerScale at patch 16, which both timm and transformers have. The loss is
transformers' own (Hungarian matching, sampled points, 5 BCE + 5 Dice + 2 cross-entropy) for all three, so that only
the heads differ: LUMA makes one prediction, EoMT L2 + 1 under masked attention, all queries masked as at the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import EomtConfig, EomtForUniversalSegmentation

from luma_cli.catalogue.heads import HeadConfig, HeadName
from luma_cli.head.parts import HeadOutput
from luma_cli.head.segmenter import build
from luma_cli.measure.count import count
from luma_cli.measure.facts import segmenter_cost

NUM_QUERIES, NUM_CLASSES, SEGMENTS = 100, 150, 8  # ADE20K has about eight classes in an image
LEARNING_RATE = 1e-4


@dataclass(frozen=True, slots=True)
class Shape:
    """A ViT: width in channels, blocks, heads, and how many blocks EoMT's queries join."""

    timm_name: str
    width: int
    depth: int
    heads: int
    num_joint: int


SHAPES = {
    "s": Shape("vit_small_patch14_reg4_dinov2", 384, 12, 6, 3),
    "b": Shape("vit_base_patch14_reg4_dinov2", 768, 12, 12, 3),
    "l": Shape("vit_large_patch14_reg4_dinov2", 1024, 24, 16, 4),
}


class Batch(NamedTuple):
    """Images [B, 3, H, W]; per image binary masks [S, H, W] and classes [S] of its segments."""

    images: Tensor
    masks: list[Tensor]
    classes: list[Tensor]


class Contestant(ABC):
    """A segmenter that can be run and trained; `loss` is the whole loss of one batch."""

    model: Any  # a module; transformers' own are only partly typed

    def start_training(self) -> None:
        """A fresh optimiser for every parameter, as in EoMT's recipe."""
        self.model.train()
        self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)

    def stop_training(self) -> None:
        """Give gradients and the optimiser's state back."""
        self.model.zero_grad(set_to_none=True)
        del self._optimizer
        self.model.eval()

    def step(self, batch: Batch, dtype: torch.dtype) -> None:
        """Forward, loss, backward and update; below float32 under autocast."""
        self._optimizer.zero_grad(set_to_none=True)
        self.loss_under(batch, dtype).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def loss_under(self, batch: Batch, dtype: torch.dtype) -> Tensor:
        """The loss, below float32 under autocast."""
        with torch.autocast(batch.images.device.type, dtype, enabled=dtype != torch.float32):
            return self.loss(batch)

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """The loss of all supervised predictions."""

    @abstractmethod
    def macs(self) -> int:
        """Multiply-adds of inference on one image."""


class Ours(Contestant):
    """A luma segmenter with head `luma` or `eomt`."""

    def __init__(self, shape: Shape, resolution: int, head: HeadName, device: str, criterion: Any) -> None:
        joint = shape.num_joint if head == "eomt" else 0
        config = HeadConfig(name=head, num_queries=NUM_QUERIES, num_classes=NUM_CLASSES, l2=joint)
        self.model = build(shape.timm_name, resolution, head=config, device=device)
        self._criterion = criterion

    def loss(self, batch: Batch) -> Tensor:
        """The loss of every prediction, summed."""
        losses = [self._one(found, batch) for found in self.model.predictions(batch.images)]
        return torch.stack(losses).sum()

    def macs(self) -> int:
        """Multiply-adds, counted on the meta device."""
        return segmenter_cost(self.model).macs

    def _one(self, prediction: Any, batch: Batch) -> Tensor:
        assert isinstance(prediction, HeadOutput)
        weighted: dict[str, Tensor] = self._criterion(
            masks_queries_logits=prediction.mask_logits,
            class_queries_logits=prediction.class_logits,
            mask_labels=batch.masks,
            class_labels=batch.classes,
            auxiliary_predictions=None,
        )
        return torch.stack(list(weighted.values())).sum()


class Theirs(Contestant):
    """Transformers' EoMT. Its `attn_mask_probs` are 0 for inference, since at 1 they mask in eval mode as well."""

    def __init__(self, model: Any, resolution: int) -> None:
        self.model = model
        self._resolution = resolution
        self._free()

    def start_training(self) -> None:
        """Mask all queries, and a fresh optimiser."""
        self.model.attn_mask_probs.fill_(1.0)
        super().start_training()

    def stop_training(self) -> None:
        """No masks again."""
        super().stop_training()
        self._free()

    def loss(self, batch: Batch) -> Tensor:
        """Its own loss of all its predictions."""
        found = self.model(batch.images, mask_labels=batch.masks, class_labels=batch.classes)
        total: Tensor = found.loss
        return total

    def macs(self) -> int:
        """Multiply-adds, counted on the tensors themselves, as its forward asks for the values of a buffer."""
        device = self.model.device
        return count(self.model, torch.zeros(1, 3, self._resolution, self._resolution, device=device)).macs

    def _free(self) -> None:
        self.model.attn_mask_probs.zero_()


def contestants(shape: Shape, resolution: int, device: str) -> dict[str, Contestant]:
    """The three, by name, with random weights on `device`."""
    configure: Any = EomtConfig
    construct: Any = EomtForUniversalSegmentation
    config = configure(
        hidden_size=shape.width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        image_size=resolution,
        patch_size=16,
        num_queries=NUM_QUERIES,
        num_blocks=shape.num_joint,
        num_labels=NUM_CLASSES,
    )
    torch.manual_seed(0)
    theirs = construct(config).to(device).eval()
    return {
        "luma": Ours(shape, resolution, "luma", device, _weighted(theirs)),
        "eomt": Ours(shape, resolution, "eomt", device, _weighted(theirs)),
        "transformers": Theirs(theirs, resolution),
    }


def make_batch(size: int, resolution: int, device: str, seed: int = 0) -> Batch:
    """Noise, cut into random rectangles of different classes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, resolution, resolution, generator=generator).to(device)
    masks, classes = [], []
    for _ in range(size):
        masks.append(_rectangles(resolution, generator).to(device))
        classes.append(torch.randperm(NUM_CLASSES, generator=generator)[:SEGMENTS].to(device))
    return Batch(images, masks, classes)


def _rectangles(resolution: int, generator: torch.Generator) -> Tensor:
    masks = torch.zeros(SEGMENTS, resolution, resolution)
    corners = torch.randint(0, resolution // 2, (SEGMENTS, 2), generator=generator).tolist()
    for mask, (top, left) in zip(masks, corners, strict=True):
        mask[top : top + resolution // 2, left : left + resolution // 2] = 1
    return masks


def _weighted(theirs: Any) -> Any:
    """Transformers' loss by parts, each with its weight; it holds the model, whose loss module it uses."""
    return theirs.get_loss_dict
