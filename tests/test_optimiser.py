"""AdamW gets every parameter that learns once, in a group whose rates follow role, block and step."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from luma_cli.catalogue.heads import HeadConfig
from luma_cli.catalogue.recipes import Recipe
from luma_cli.errors import BadRecipe
from luma_cli.head.segmenter import Segmenter, build
from luma_cli.train.batch_norm import BatchNormChoice, train_mode
from luma_cli.train.optimiser import create_optimizer, freeze_backbone, set_learning_rates

SMALL = HeadConfig(num_queries=5, num_classes=3)
RECIPE = Recipe(warmup_head_steps=10, warmup_backbone_steps=20)


def names_of(optimizer: torch.optim.Optimizer) -> list[str]:
    return [name for group in optimizer.param_groups for name in group["param_names"]]


def scale_of(optimizer: torch.optim.Optimizer, name: str) -> float:
    return next(group["lr_scale"] for group in optimizer.param_groups if name in group["param_names"])


def step(segmenter: Segmenter, optimizer: torch.optim.Optimizer) -> None:
    torch.manual_seed(0)
    found = segmenter(torch.randn(2, 3, 64, 64))
    (found.class_logits.square().mean() + found.mask_logits.square().mean()).backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(
    ("name", "resolution"),
    [
        ("test_vit", 64),
        ("swin_tiny_patch4_window7_224", 224),
        ("resnet18", 224),
        ("gfnet_vit_tiny_patch16_224", 224),
        ("vmoe_vit_tiny_patch16_224", 224),
    ],
)
def test_every_parameter_is_in_one_group(name: str, resolution: int) -> None:
    segmenter = build(name, resolution, head=SMALL, device="meta")
    optimizer = create_optimizer(segmenter, RECIPE)
    named = dict(segmenter.named_parameters())
    assert sorted(names_of(optimizer)) == sorted(named)
    ids = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(ids) == sorted(map(id, named.values()))
    for group in optimizer.param_groups:
        assert group["role"] == ("backbone" if group["param_names"][0].startswith("backbone.") else "head")
        assert (group["weight_decay"], group["betas"], group["eps"]) == (0.05, (0.9, 0.999), 1e-8)
    assert len({(group["role"], group["lr_scale"]) for group in optimizer.param_groups}) == len(optimizer.param_groups)


def test_the_shared_ffn_is_the_backbone_s_and_learns_at_its_last_block_s_rate() -> None:
    segmenter = build("test_vit", 64, head=SMALL)
    assert segmenter.ffn == "reused"
    optimizer = create_optimizer(segmenter, RECIPE)
    ffn = [name for name in names_of(optimizer) if ".mlp.fc1.weight" in name]
    assert ffn == [f"backbone.model.blocks.{number}.mlp.fc1.weight" for number in range(6)]
    assert [scale_of(optimizer, name) for name in ffn] == [pytest.approx(0.8 ** (5 - number)) for number in range(6)]
    assert scale_of(optimizer, "backbone.model.norm.weight") == 1


def test_rates_of_a_step() -> None:
    optimizer = create_optimizer(build("test_vit", 64, head=SMALL), RECIPE)
    set_learning_rates(optimizer, RECIPE, 5, 130)
    assert {(group["role"], group["lr"]) for group in optimizer.param_groups} == {("head", 0.5e-4), ("backbone", 0.0)}
    set_learning_rates(optimizer, RECIPE, 20, 130)
    rates = {(group["role"], group["lr_scale"]): group["lr"] for group in optimizer.param_groups}
    assert rates == {
        (role, scale): pytest.approx(1e-4 * ((1 - 10 / 120) ** 0.9 if role == "head" else 0.5 * scale))
        for role, scale in rates
    }
    assert len(rates) == 7


def test_the_backbone_rests_during_the_head_s_warm_up() -> None:
    segmenter = build("test_vit", 64, head=SMALL).train()
    before = {name: parameter.detach().clone() for name, parameter in segmenter.named_parameters()}
    optimizer = create_optimizer(segmenter, RECIPE)
    set_learning_rates(optimizer, RECIPE, 9, 100)
    step(segmenter, optimizer)
    moved = {name for name, parameter in segmenter.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved
    assert all(name.startswith("head.") for name in moved)


def test_a_frozen_backbone_is_in_no_group_and_stays_in_eval_mode() -> None:
    segmenter = build("test_vit", 64, head=SMALL)
    assert freeze_backbone(segmenter) == sum(parameter.numel() for parameter in segmenter.backbone.parameters())
    optimizer = create_optimizer(segmenter, RECIPE)
    assert all(name.startswith("head.") for name in names_of(optimizer))
    before = {name: value.clone() for name, value in segmenter.backbone.state_dict().items()}
    train_mode(segmenter, BatchNormChoice("none", ""))
    assert segmenter.head.training
    assert not any(part.training for part in segmenter.backbone.modules())
    set_learning_rates(optimizer, RECIPE, 50, 100)
    step(segmenter, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in segmenter.backbone.state_dict().items())


def test_nothing_to_learn_is_refused() -> None:
    segmenter = build("test_vit", 64, head="none")
    freeze_backbone(segmenter)
    with pytest.raises(BadRecipe, match="nothing is left to learn"):
        create_optimizer(segmenter, RECIPE)


def test_fused_where_torch_has_it() -> None:
    segmenter = build("test_vit", 64, head=SMALL)
    assert create_optimizer(segmenter, RECIPE).defaults["fused"]
    assert create_optimizer(build("test_vit", 64, head=SMALL, device="meta"), RECIPE).defaults["foreach"]
    segmenter.head.register_parameter("phase", nn.Parameter(torch.ones(1, dtype=torch.complex64)))
    assert create_optimizer(segmenter, RECIPE).defaults["foreach"]


def test_a_resumed_optimiser_goes_on_bit_for_bit() -> None:
    first, second = (build("test_vit", 64, head=SMALL).train() for _ in range(2))
    one, other = create_optimizer(first, RECIPE), create_optimizer(second, RECIPE)
    set_learning_rates(one, RECIPE, 30, 100)
    step(first, one)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(deepcopy(one.state_dict()))  # torch would share the tensors
    for module, optimizer in ((first, one), (second, other)):
        set_learning_rates(optimizer, RECIPE, 31, 100)
        step(module, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
