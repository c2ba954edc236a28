"""What a backbone's BatchNorms do at the small batches of segmentation: learn statistics together, alone, or rest.

No published recipe of a mask transformer met BatchNorm: EoMT's backbones have none. Statistics of fewer than 8 images
would be noisier than those of the pretraining, which are then kept. Scale and shift learn in every case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn

from luma_cli.catalogue.recipes import BatchNorm
from luma_cli.errors import BadRecipe
from luma_cli.head.segmenter import Segmenter

ENOUGH_IMAGES = 8  # in one pass of one process; our choice, in the absence of a published one

Choice = Literal["none", "sync", "train", "frozen"]


@dataclass(frozen=True, slots=True)
class BatchNormChoice:
    """What was chosen and why. `none`: there is no BatchNorm."""

    choice: Choice
    reason: str

    def __str__(self) -> str:
        """One line to be stored."""
        return f"{self.choice}: {self.reason}"


def choose(
    segmenter: Segmenter, policy: BatchNorm, *, num_processes: int, images_per_pass: int, device_type: str
) -> BatchNormChoice:
    """The choice for a training in which every process has `images_per_pass` images at a time.

    Raises BadRecipe for `sync` over several processes that are not on GPUs, as torch has no such layer.
    """
    if not any(True for _ in batch_norms(segmenter)):
        return BatchNormChoice("none", "no BatchNorm in backbone or head")
    together = num_processes > 1 and device_type == "cuda"
    if policy == "sync" and num_processes > 1 and not together:
        raise BadRecipe(
            f"batch_norm is 'sync' on {num_processes} processes without GPUs, which torch cannot; "
            "type --set batch_norm=train or --set batch_norm=frozen"
        )
    if policy == "sync" and not together:
        return BatchNormChoice("train", "sync was asked for, and one process has all images")
    if policy != "auto":
        return BatchNormChoice(policy, "asked for")
    if together:
        return BatchNormChoice("sync", f"{num_processes} GPUs")
    if not any(True for _ in batch_norms(segmenter.backbone)):
        return BatchNormChoice("train", "fresh ones of the head alone, which have no other statistics")
    enough = images_per_pass >= ENOUGH_IMAGES
    relation = f"at least {ENOUGH_IMAGES}" if enough else f"fewer than {ENOUGH_IMAGES}"
    return BatchNormChoice("train" if enough else "frozen", f"{relation} images in a pass ({images_per_pass})")


def apply(segmenter: Segmenter, choice: BatchNormChoice) -> None:
    """Make the layers what was chosen. New layers take over the parameters, so an optimiser made before keeps them."""
    if choice.choice != "sync":
        return
    once = any("forward" in vars(norm) for norm in batch_norms(segmenter.backbone))  # by count_once
    convert_sync_batchnorm(segmenter)  # type: ignore[no-untyped-call]
    if once:
        for norm in batch_norms(segmenter.backbone):
            count_once(norm)


def count_once(norm: nn.Module) -> None:
    """Let a BatchNorm that is run again in the backward leave its statistics alone: they have seen these images."""
    forward = norm.forward

    def counting_once(images: Tensor) -> Tensor:
        # torch.compile makes a pure function of the forward, of which only one run is kept.
        if torch.compiler.is_compiling() or torch._C._current_graph_task_id() == -1:  # not inside a backward
            return forward(images)  # type: ignore[no-any-return]
        before = [buffer.clone() for buffer in norm.buffers(recurse=False)]
        try:
            return forward(images)  # type: ignore[no-any-return]
        finally:
            with torch.no_grad():
                for buffer, value in zip(norm.buffers(recurse=False), before, strict=True):
                    buffer.copy_(value)

    norm.forward = counting_once


def train_mode(segmenter: Segmenter, choice: BatchNormChoice) -> None:
    """`segmenter.train()` under this choice, and with a backbone of which nothing learns left in eval mode.

    A frozen backbone neither drops paths nor moves statistics: its features stay those of the evaluation. BatchNorms of
    the head have no statistics of a pretraining to keep and always learn theirs.
    """
    segmenter.train()
    backbone = segmenter.backbone
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        backbone.eval()
    elif choice.choice == "frozen":
        for norm in batch_norms(backbone):
            norm.eval()


def batch_norms(module: nn.Module) -> Iterator[nn.Module]:
    """Every layer that normalises by statistics which it keeps; timm has kinds that are not torch's."""
    return (part for part in module.modules() if "running_var" in dict(part.named_buffers(recurse=False)))
