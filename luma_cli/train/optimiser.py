"""AdamW over a segmenter: parameter groups by role and learning rate, and the rates of a step.

EoMT's settings (arXiv 2503.19108, section 4.1): weight decay on every tensor, the backbone's rates falling from block
to block. The FFN that the head borrows is the backbone's and stands in its groups alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from luma_cli.catalogue.recipes import Recipe
from luma_cli.errors import BadRecipe
from luma_cli.head.segmenter import Segmenter
from luma_cli.train.layers import scales
from luma_cli.train.schedule import Role, factor

_FUSED_ON = ("cpu", "cuda")


def create_optimizer(segmenter: Segmenter, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over every parameter of `segmenter` that learns.

    Every group says its `role`, its `lr_scale` (factor of the recipe's `lr`, before the schedule's) and its
    `param_names`. Raises BadRecipe where nothing learns.
    """
    groups = parameter_groups(segmenter, recipe)
    if not groups:
        raise BadRecipe("nothing is left to learn: the head has no parameters and the backbone is frozen")
    parameters = [parameter for group in groups for _, parameter in group["params"]]
    return torch.optim.AdamW(
        groups,
        lr=recipe.lr,
        betas=(recipe.beta1, recipe.beta2),
        eps=recipe.eps,
        weight_decay=recipe.weight_decay,
        **_kernels(parameters),
    )


def parameter_groups(segmenter: Segmenter, recipe: Recipe) -> list[dict[str, Any]]:
    """One group per role and rate, head first, then the backbone's from its first block to its last."""
    found: dict[tuple[Role, float], list[tuple[str, nn.Parameter]]] = {}
    scale_of = scales(segmenter.backbone, recipe.layer_decay)
    start = "backbone.model."
    for name, parameter in segmenter.named_parameters():
        if parameter.requires_grad:
            inside = name.removeprefix(start) if name.startswith(start) else None
            key: tuple[Role, float] = ("head", 1.0) if inside is None else ("backbone", scale_of[inside])
            found.setdefault(key, []).append((name, parameter))
    order = sorted(found, key=lambda key: (key[0] != "head", key[1]))
    return [{"params": found[role, scale], "role": role, "lr_scale": scale} for role, scale in order]


def _kernels(parameters: list[nn.Parameter]) -> dict[str, bool]:
    """One fused kernel per group where torch has it, else one per operation."""
    fused = all(parameter.is_floating_point() and parameter.device.type in _FUSED_ON for parameter in parameters)
    return {"fused": True} if fused else {"foreach": True}


def set_learning_rates(optimizer: torch.optim.Optimizer, recipe: Recipe, step: int, num_steps: int) -> None:
    """Give every group its learning rate of optimiser step `step`, from 0."""
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * group["lr_scale"] * factor(group["role"], step, num_steps, recipe)


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[Role, float]:
    """The greatest learning rate of each role, as a progress line shows it."""
    found: dict[Role, float] = {}
    for group in optimizer.param_groups:
        found[group["role"]] = max(found.get(group["role"], 0.0), group["lr"])
    return found
