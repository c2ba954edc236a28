"""The recipe of a fine-tuning: every number that decides what is learnt, with where it comes from. Imports no torch.

The defaults are EoMT's for ADE20K with DINOv2 (arXiv 2503.19108, section 4.1 and its released code), which LUMA is
taken to share (arXiv 2607.00687 states no other).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from luma_cli.data.augmentation import Augmentation

Dtype = Literal["auto", "bf16", "fp16", "fp32"]
BatchNorm = Literal["auto", "sync", "train", "frozen"]
_USUAL = Augmentation()


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a training. Steps are those of the optimiser; `lr` is that of the head and of the last block.

    epochs or steps: one of them is 0 and the other says how long. batch: images per step, over all processes and
    micro-batches. layer_decay: factor of `lr` per block from the last, 1 for none; deep nets get it over 24 blocks.
    warmup_head_steps, then warmup_backbone_steps: the backbone stays as it is during the first. clip_norm: of the whole
    gradient, 0 for none. anneal_starts, anneal_ends: of an EoMT head, shares of all steps per joint block; empty for
    equal phases. ema_decay: 0 for none. batch_norm: `auto` is sync over several GPUs, train from 8 images per process
    and frozen below. dtype `auto`: bf16 where the GPU has it, else fp32. eval_every_epochs: 0 for at the end alone.
    """

    name: str = "ade20k"
    source: str = ""
    epochs: float = 31
    steps: int = 0
    batch: int = 16
    lr: float = 1e-4
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    layer_decay: float = 0.8
    warmup_head_steps: int = 500
    warmup_backbone_steps: int = 1000
    poly_power: float = 0.9
    clip_norm: float = 0.01
    bce_weight: float = 5.0
    dice_weight: float = 5.0
    class_weight: float = 2.0
    no_object_weight: float = 0.1
    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_ratio: float = 0.75
    anneal_starts: tuple[float, ...] = ()
    anneal_ends: tuple[float, ...] = ()
    ema_decay: float = 0.0
    batch_norm: BatchNorm = "auto"
    dtype: Dtype = "auto"
    freeze_backbone: bool = False
    eval_every_epochs: float = 1.0
    brightness: float = _USUAL.brightness
    contrast: float = _USUAL.contrast
    saturation: float = _USUAL.saturation
    hue: float = _USUAL.hue
    colour_chance: float = _USUAL.colour_chance
    flip_chance: float = _USUAL.flip_chance
    scale_min: float = _USUAL.scale_min
    scale_max: float = _USUAL.scale_max

    def augmentation(self) -> Augmentation:
        """The part that says how images are changed."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})
