"""Routing and dispatch of experts against loops that follow the papers, one token at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from luma_cli.isotropic.mixtures import (
    Experts,
    RoutedMlp,
    SoftMlp,
    SwitchMlp,
    VMoeMlp,
    assign,
    capacity_of,
    importance_loss,
    load_loss,
    places,
    switch_loss,
)

WIDTH, HIDDEN, NUM_EXPERTS = 8, 12, 4


def drawn(module: nn.Module, seed: int = 0) -> nn.Module:
    """`module` with every parameter from N(0, 1/4), so that no part is too small to show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def tokens(batch: int = 3, count: int = 10) -> Tensor:
    return torch.randn(batch, count, WIDTH, generator=torch.Generator().manual_seed(1))


def expert(experts: Experts, index: int, row: Tensor) -> Tensor:
    hidden = F.gelu(row @ experts.fc1.weight[index] + experts.fc1.bias[index])
    return hidden @ experts.fc2.weight[index] + experts.fc2.bias[index]


def by_loop(mlp: RoutedMlp, images: Tensor, capacity: int, prioritised: bool = False) -> tuple[Tensor, int]:
    """Tokens one by one: the result, and how many choices were dropped."""
    result, dropped = torch.zeros_like(images), 0
    for image, rows in enumerate(images):
        bias = 0 if mlp.router.bias is None else mlp.router.bias
        shares = (rows @ mlp.router.weight.T + bias).softmax(-1)
        order = shares.max(-1).values.argsort(descending=True).tolist() if prioritised else range(len(rows))
        load = [0] * mlp.num_experts
        for rank in range(mlp.num_choices):
            for token in order:
                index = int(shares[token].argsort(descending=True)[rank])
                load[index] += 1
                if load[index] > capacity:
                    dropped += 1
                else:
                    result[image, token] += shares[token, index] * expert(mlp.experts, index, rows[token])
    return result, dropped


@pytest.mark.parametrize(
    ("make", "factor"),
    [(SwitchMlp, 0.5), (SwitchMlp, 1.0), (SwitchMlp, 4.0), (VMoeMlp, 0.5), (VMoeMlp, 1.0), (VMoeMlp, 2.0)],
)
@torch.no_grad()
def test_routed_ffn_equals_the_loop(make: type[RoutedMlp], factor: float) -> None:
    mlp = drawn(make(WIDTH, HIDDEN, num_experts=NUM_EXPERTS, capacity_factor=factor))
    expected, dropped = by_loop(mlp, tokens(), mlp.capacity(10))
    torch.testing.assert_close(mlp(tokens()), expected)
    assert (dropped == 0) == (factor * mlp.num_choices >= NUM_EXPERTS)


@torch.no_grad()
def test_priority_routing_equals_the_loop_and_keeps_other_tokens() -> None:
    mlp = drawn(VMoeMlp(WIDTH, HIDDEN, num_experts=NUM_EXPERTS, capacity_factor=0.5, priority=True))
    expected, dropped = by_loop(mlp, tokens(), mlp.capacity(10), prioritised=True)
    assert dropped > 0
    torch.testing.assert_close(mlp(tokens()), expected)
    assert not torch.allclose(by_loop(mlp, tokens(), mlp.capacity(10))[0], expected)


def test_places_count_first_choices_before_second_ones() -> None:
    choices = torch.tensor([[[0, 1], [0, 2], [1, 0]]])
    assert places(choices, 3).tolist() == [[[0, 1], [1, 0], [0, 2]]]
    priority = torch.tensor([[0.1, 0.9, 0.5]])
    assert places(choices, 3, priority).tolist() == [[[1, 1], [0, 0], [0, 2]]]


def test_overflow_drops_the_last_tokens_of_the_image() -> None:
    dispatch = assign(torch.zeros(2, 5, 1, dtype=torch.long), num_experts=2, capacity=3)
    assert dispatch.kept[..., 0].tolist() == [[True, True, True, False, False]] * 2
    assert dispatch.tokens.tolist() == [0, 1, 2, 5, 6, 7] + [0, 0, 0, 5, 5, 5]


@pytest.mark.parametrize(
    ("count", "experts", "choices", "factor", "expected"),
    [(197, 8, 1, 1.25, 31), (1, 8, 1, 1.25, 1), (1, 8, 2, 1.05, 1), (10, 4, 2, 9.0, 10), (16, 4, 1, 1.0, 4)],
)
def test_capacity(count: int, experts: int, choices: int, factor: float, expected: int) -> None:
    assert capacity_of(count, experts, choices, factor) == expected


def test_a_dropped_token_gets_zero_and_no_gradient() -> None:
    mlp = drawn(SwitchMlp(WIDTH, HIDDEN, num_experts=2, capacity_factor=0.1))
    images = tokens(1, 6).requires_grad_()
    result = mlp(images)
    dropped = (result == 0).all(dim=-1)
    assert 0 < int(dropped.sum()) < 6
    result.sum().backward()
    assert (images.grad[dropped] == 0).all()
    assert (images.grad[~dropped] != 0).any(dim=-1).all()


@torch.no_grad()
def test_unit_gates_pass_the_expert_s_output_whole() -> None:
    mlp = drawn(SwitchMlp(WIDTH, HIDDEN, num_experts=NUM_EXPERTS, capacity_factor=NUM_EXPERTS))
    gates, choices = mlp.router(tokens()).softmax(-1).max(-1)
    scaled = mlp(tokens())
    mlp.unit_gates.fill_(True)
    torch.testing.assert_close(mlp(tokens()) * gates[..., None], scaled)
    first = expert(mlp.experts, int(choices[0, 0]), tokens()[0, 0])
    torch.testing.assert_close(mlp(tokens())[0, 0], first)


def test_unit_gates_still_teach_the_router() -> None:
    mlp = drawn(SwitchMlp(WIDTH, HIDDEN, num_experts=NUM_EXPERTS))
    mlp.unit_gates.fill_(True)
    mlp(tokens()).square().sum().backward()
    assert mlp.router.weight.grad.abs().sum() > 0


def test_switch_loss_follows_equations_4_to_6() -> None:
    logits = torch.randn(2, 9, NUM_EXPERTS, generator=torch.Generator().manual_seed(2))
    shares = logits.softmax(-1)
    flat = shares.reshape(-1, NUM_EXPERTS)
    expected = 0.0
    for index in range(NUM_EXPERTS):
        sent = sum(int(row.argmax()) == index for row in flat) / len(flat)
        expected += NUM_EXPERTS * sent * float(flat[:, index].mean())
    assert float(switch_loss(shares, shares.argmax(-1, keepdim=True))) == pytest.approx(expected, rel=1e-5)
    uniform = torch.full((1, NUM_EXPERTS, NUM_EXPERTS), 1 / NUM_EXPERTS)
    assert float(switch_loss(uniform, torch.arange(NUM_EXPERTS)[None, :, None])) == pytest.approx(1.0)


def test_vmoe_losses_follow_appendix_a() -> None:
    logits = torch.randn(2, 9, NUM_EXPERTS, generator=torch.Generator().manual_seed(3))
    threshold = logits.topk(2).values[..., 1:]
    flat, least = logits.reshape(-1, NUM_EXPERTS), threshold.flatten()
    importance = torch.stack([row.softmax(-1) for row in flat]).sum(0)
    normal = torch.distributions.Normal(0.0, 1 / NUM_EXPERTS)
    load = torch.stack([1 - normal.cdf(least[i] - row) for i, row in enumerate(flat)]).sum(0)
    for found, sums in ((importance_loss(logits), importance), (load_loss(logits, threshold), load)):
        assert float(found) == pytest.approx(float((sums.std(correction=0) / sums.mean()) ** 2), rel=1e-4)
    assert float(importance_loss(torch.zeros(1, 5, 3))) == pytest.approx(0.0, abs=1e-9)


@torch.no_grad()
def test_soft_moe_equals_its_explicit_matrices() -> None:
    mlp = drawn(SoftMlp(WIDTH, HIDDEN, num_experts=3, slots_per_expert=2))
    for image, found in zip(tokens(), mlp(tokens()), strict=True):
        unit = image / image.norm(dim=1, keepdim=True)
        logits = unit @ (mlp.scale * mlp.phi / mlp.phi.norm(dim=0, keepdim=True))
        dispatch, mix = logits.exp() / logits.exp().sum(0), logits.exp() / logits.exp().sum(1, keepdim=True)
        slots = dispatch.T @ image
        outputs = torch.stack([expert(mlp.experts, slot // 2, slots[slot]) for slot in range(6)])
        torch.testing.assert_close(found, mix @ outputs)


@pytest.mark.parametrize("make", [SwitchMlp, VMoeMlp])
def test_router_stays_in_float32(make: type[RoutedMlp]) -> None:
    mlp = drawn(make(WIDTH, HIDDEN, num_experts=NUM_EXPERTS))
    assert mlp.to(torch.bfloat16).router(tokens().bfloat16()).dtype == torch.float32
    expected = mlp.float().router(tokens())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mlp.router(tokens()), expected)
        assert mlp(tokens()).dtype == torch.bfloat16
