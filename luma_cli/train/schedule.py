"""Learning rates over a training: warm-up of the head, then of the backbone, then polynomial decay. Imports no torch.

EoMT's two-stage schedule (arXiv 2503.19108, section 4.1; https://github.com/tue-mps/eomt,
training/two_stage_warmup_poly_schedule.py). While the new layers find their first direction the backbone rests.
"""

from __future__ import annotations

from typing import Literal

from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.eomt import MaskAnnealing

Role = Literal["head", "backbone"]


def factor(role: Role, step: int, num_steps: int, recipe: Recipe) -> float:
    """What the learning rate of a group with this role is multiplied with in optimiser step `step`, from 0.

    >>> recipe = Recipe(warmup_head_steps=10, warmup_backbone_steps=20, poly_power=1.0)
    >>> [factor("head", step, 110, recipe) for step in (0, 5, 10, 60)]
    [0.0, 0.5, 1.0, 0.5]
    >>> [factor("backbone", step, 110, recipe) for step in (9, 10, 20, 30, 70)]
    [0.0, 0.0, 0.5, 1.0, 0.5]
    """
    if role == "head":
        return _rise_and_fall(step, 0, recipe.warmup_head_steps, num_steps, recipe.poly_power)
    rest = recipe.warmup_head_steps
    return _rise_and_fall(step, rest, rest + recipe.warmup_backbone_steps, num_steps, recipe.poly_power)


def _rise_and_fall(step: int, start: int, top: int, end: int, power: float) -> float:
    """0 until `start`, a line up to 1 at `top`, then (1 - share of what is left) ** power down to 0 at `end`."""
    if step < start:
        return 0.0
    if step < top:
        return (step - start) / (top - start)
    return 0.0 if step >= end else (1 - (step - top) / (end - top)) ** power


def mask_annealing(recipe: Recipe, num_steps: int, num_joint: int) -> MaskAnnealing:
    """When an EoMT head of `num_joint` joint blocks frees its queries: the recipe's shares of all steps, in steps."""
    if not recipe.anneal_starts:
        return MaskAnnealing.in_equal_phases(num_steps, num_joint)
    return MaskAnnealing(
        starts=tuple(share * num_steps for share in recipe.anneal_starts),
        ends=tuple(share * num_steps for share in recipe.anneal_ends),
    )
