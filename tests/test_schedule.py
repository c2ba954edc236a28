"""Learning rates follow EoMT's two-stage schedule, and annealing the shares of the recipe."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luma_cli.catalogue.recipes import Recipe
from luma_cli.head.eomt import MaskAnnealing
from luma_cli.train.optimiser import factor, mask_annealing


def head_rate(t: int, total: int, a: int, power: float) -> float:
    """EoMT: t < a: t / a, else (1 - (t - a) / (T - a)) ** power."""
    return t / a if t < a else (1 - (t - a) / (total - a)) ** power


def backbone_rate(t: int, total: int, a: int, b: int, power: float) -> float:
    """EoMT: 0 before a, (t - a) / b before a + b, then as the head's from there."""
    if t < a:
        return 0.0
    return (t - a) / b if t < a + b else (1 - (t - a - b) / (total - a - b)) ** power


@given(a=st.integers(0, 500), b=st.integers(0, 500), rest=st.integers(1, 1000), power=st.floats(0.1, 3), data=st.data())
def test_equal_to_the_formula(a: int, b: int, rest: int, power: float, data: st.DataObject) -> None:
    total = a + b + rest
    step = data.draw(st.integers(0, total - 1))
    recipe = Recipe(warmup_head_steps=a, warmup_backbone_steps=b, poly_power=power)
    assert factor("head", step, total, recipe) == head_rate(step, total, a, power)
    assert factor("backbone", step, total, recipe) == backbone_rate(step, total, a, b, power)


def test_published_recipe_at_its_corners() -> None:
    recipe, total = Recipe(), 39122
    head = [factor("head", step, total, recipe) for step in (0, 250, 500, total)]
    backbone = [factor("backbone", step, total, recipe) for step in (0, 499, 1000, 1500, total)]
    assert head == [0, 0.5, 1, 0]
    assert backbone == [0, 0, 0.5, 1, 0]


def test_cosine_takes_the_place_of_the_polynomial() -> None:
    recipe = Recipe(warmup_head_steps=10, warmup_backbone_steps=20, schedule="cosine")
    head = [factor("head", step, 110, recipe) for step in (5, 10, 35, 60, 110)]
    assert head == pytest.approx([0.5, 1, 0.5 + math.cos(math.pi / 4) / 2, 0.5, 0])
    assert factor("backbone", 70, 110, recipe) == pytest.approx(0.5)


def test_annealing_is_eomts_unless_the_recipe_says_shares() -> None:
    assert mask_annealing(Recipe(), 600, 4) == MaskAnnealing.published(600, 4)
    said = mask_annealing(Recipe(anneal_starts=(0.0, 0.25), anneal_ends=(0.5, 1.0)), 600, 2)
    assert said == MaskAnnealing(starts=(0, 150), ends=(300, 600))
    assert said.probabilities(300) == (0.0, pytest.approx((1 - 150 / 450) ** 0.9))


def test_annealing_may_be_said_in_steps_for_any_number_of_blocks() -> None:
    """EoMT's DINOv3 configurations: ADE20K with 4 blocks, and 3 blocks of COCO as shares of its 177,384 steps."""
    starts, ends = (0, 6520, 9780, 13040), (3000, 9780, 13040, 16300)
    recipe = Recipe(anneal_starts=starts, anneal_ends=ends)
    assert mask_annealing(recipe, 20_208, 4) == MaskAnnealing(starts, ends)
    three = mask_annealing(recipe, 20_208, 3)
    assert three.starts == (0, pytest.approx(73910 / 177384 * 19560), 13040)
    assert three.ends == (3000, pytest.approx(103474 / 177384 * 19560), 16300)
    assert mask_annealing(recipe, 20_208, 1) == MaskAnnealing((0,), (3000,))
