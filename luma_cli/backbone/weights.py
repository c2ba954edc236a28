"""Weights for a backbone: random ones from a seed, or files that can be trusted not to run code."""

from __future__ import annotations

import torch
from torch import nn

from luma_cli.backbone.backbone import LoadedWeights
from luma_cli.backbone.timm_model import Recipe, build


def load_weights(
    recipe: Recipe, resolution: int, weights: str, seed: int, kept: set[str]
) -> tuple[nn.Module, LoadedWeights]:
    """The model of `recipe` on the CPU with the weights asked for."""
    model = build(recipe, resolution, torch.device("cpu"), seed)
    return model, LoadedWeights("random", seed)
