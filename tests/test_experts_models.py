"""Whole models with experts: batch independence, gradients, weights, compiling, and what queries leave untouched."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tiny_backbones import spec
from torch import Tensor, nn
from torch.nn import functional as F

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.create import create_backbone
from luma_cli.backbone.selfcheck import redraw_scales
from luma_cli.errors import WeightsError
from luma_cli.head.segmenter import build
from luma_cli.isotropic.checkpoints import convert, wtf_switch
from luma_cli.isotropic.entrypoints import register
from luma_cli.isotropic.mixtures import ExpertViT, RoutedMlp, SwitchMlp, balance_loss, expert_layers

SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 4, "num_heads": 2}
KINDS = ("switch_vit", "vmoe_vit", "softmoe_vit")
ROUTED = KINDS[:2]


def model(kind: str, side: int = 64, seed: int = 0, **options: Any) -> ExpertViT:
    register()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made: ExpertViT = timm.create_model(
            f"{kind}_tiny_patch16_224", img_size=side, num_classes=0, **{**SMALL, **options}
        )
        for parameter in made.parameters():  # timm's initial weights are too small for experts to differ
            nn.init.normal_(parameter, std=0.2)
    return made


def backbone(kind: str, **experts_options: Any) -> Backbone:
    arguments = {**SMALL, "experts_options": experts_options}
    made = create_backbone(spec(f"{kind}_tiny_patch16_224", arguments=arguments), 64)
    if made.ffn_kind:
        redraw_scales(made.ffn, torch.Generator().manual_seed(0))
    return made


def images(batch: int = 3, side: int = 64) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_image_s_output_never_depends_on_the_batch(kind: str) -> None:
    made = model(kind, experts_options={} if kind == "softmoe_vit" else {"capacity_factor": 0.7}).eval()
    together = made.forward_features(images())
    for index in range(3):
        torch.testing.assert_close(made.forward_features(images()[index : index + 1])[0], together[index])


@pytest.mark.parametrize("kind", KINDS)
def test_training_step_reaches_every_parameter(kind: str) -> None:
    made = model(kind).train()
    (made(images()).square().mean() + made.balance_loss()).backward()
    missing = [name for name, parameter in made.named_parameters() if parameter.grad is None]
    assert not missing
    idle = [name for name, parameter in made.named_parameters() if not parameter.grad.any()]
    assert not idle


def test_an_expert_without_tokens_still_has_a_gradient_of_zeros() -> None:
    made = model("switch_vit").train()
    mlp = made.blocks[0].mlp
    with torch.no_grad():
        mlp.router.bias.copy_(torch.tensor([100.0] + [0.0] * 7))
    made(images()).sum().backward()
    assert mlp.tokens_per_expert.tolist() == [3 * 17] + [0] * 7
    assert float(mlp.dropped_share) == pytest.approx(1 - 3 / 17)  # room for ceil(1.25 * 17 / 8)
    assert mlp.experts.fc1.weight.grad[0].any()
    assert not mlp.experts.fc1.weight.grad[1:].any()


@pytest.mark.parametrize("kind", ROUTED)
def test_balance_loss_is_the_sum_over_blocks_and_survives_copies(kind: str) -> None:
    made = model(kind).train()
    made(images())
    routed = [part for part in made.modules() if isinstance(part, RoutedMlp)]
    assert len(routed) == {"switch_vit": 4, "vmoe_vit": 2}[kind]
    torch.testing.assert_close(made.balance_loss(), sum(part.balance_loss for part in routed))
    assert float(balance_loss(copy.deepcopy(made))) == 0.0  # a copy has made no forward of its own
    before = [part.balance_loss for part in routed]
    made.eval()(images())
    assert all(part.balance_loss is loss for part, loss in zip(routed, before, strict=True))
    assert not any("balance" in key or "tokens" in key or "share" in key for key in made.state_dict())


def test_nothing_routed_has_no_balance_loss() -> None:
    made = model("softmoe_vit").train()
    made(images())
    assert float(made.balance_loss()) == 0.0


def test_unbalanced_routing_costs_more() -> None:
    made = model("switch_vit").train()
    made(images())
    balanced = made.balance_loss().item()
    for block in made.blocks:
        nn.init.constant_(block.mlp.router.bias[:1], 100.0)
    made(images())
    assert balanced < made.balance_loss().item() <= 4 * 0.01 * 8 * 1.0001


def test_gradients_reach_the_router_when_blocks_are_recomputed() -> None:
    made, plain = model("switch_vit").train(), model("switch_vit").train()
    made.set_grad_checkpointing(True)
    for each in (made, plain):
        (each(images()).square().mean() + each.balance_loss()).backward()
    for ours, theirs in zip(made.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_one_graph_compiles(kind: str, training: bool) -> None:
    made = model(kind).train(training)
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    found = compiled(images())
    torch.manual_seed(0)
    torch.testing.assert_close(found, made(images()))
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_224_pixels_load_at_512(kind: str) -> None:
    small, large = model(kind, 224, depth=2), model(kind, 512, seed=1, depth=2)
    large.load_state_dict(convert(small.state_dict(), large))
    kept = {key for key, value in large.state_dict().items() if torch.equal(value, small.state_dict().get(key))}
    assert set(large.state_dict()) - kept == {"pos_embed"}
    with torch.no_grad():
        assert large.eval().forward_features(images(1, 512)).isfinite().all()


def test_placements() -> None:
    assert [sorted(expert_layers(where, 6)) for where in ("every", "every_2", "last_2", "second_half")] == [
        [0, 1, 2, 3, 4, 5],
        [1, 3, 5],
        [3, 5],
        [3, 4, 5],
    ]


@pytest.mark.parametrize("kind", ROUTED)
def test_queries_leave_routing_statistics_and_loss_alone(kind: str) -> None:
    made = backbone(kind).train()
    mlp = made.ffn.block.mlp
    features = made(images())
    loss, counts, dropped = mlp.balance_loss, mlp.tokens_per_expert.clone(), mlp.dropped_share.clone()
    assert counts.sum() == 3 * 17 * mlp.num_choices
    queries = torch.randn(3, 6, 32, requires_grad=True)
    result = made.query_ffn(queries)
    assert mlp.balance_loss is loss
    assert torch.equal(mlp.tokens_per_expert, counts)
    assert torch.equal(mlp.dropped_share, dropped)
    result.square().sum().backward()
    assert mlp.router.weight.grad.any()
    assert mlp.experts.fc2.weight.grad.any()
    assert queries.grad.any()
    assert features.requires_grad


@pytest.mark.parametrize("kind", ROUTED)
@torch.no_grad()
def test_no_query_is_dropped_however_many_choose_one_expert(kind: str) -> None:
    made = backbone(kind, capacity_factor=0.1).eval()
    query = torch.randn(1, 1, 32)
    alone = made.query_ffn(query)
    assert not torch.allclose(alone, query, atol=1e-2)
    torch.testing.assert_close(made.query_ffn(query.expand(2, 50, 32)), alone.expand(2, 50, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_patches_are_routed_alike_with_and_without_the_head(kind: str) -> None:
    segmenter = build(spec(f"{kind}_tiny_patch16_224", arguments=SMALL), 64).train()
    routed = [part for part in segmenter.modules() if isinstance(part, RoutedMlp)]
    torch.manual_seed(0)
    features = segmenter.backbone(images())
    counts = [part.tokens_per_expert.clone() for part in routed]
    seen: list[Tensor] = []
    segmenter.backbone.register_forward_hook(lambda _, __, output: seen.append(output))
    torch.manual_seed(0)
    segmenter(images())
    assert torch.equal(seen[0], features)
    assert all(torch.equal(part.tokens_per_expert, count) for part, count in zip(routed, counts, strict=True))


def wtf_state(mlp: SwitchMlp) -> dict[str, Tensor]:
    """A Switch layer's weights as the WTF benchmark keeps them: one module per expert, linear weights [out, in]."""
    state = {"norm.weight": torch.ones(3)}
    for layer in ("fc1", "fc2"):
        stack = mlp.experts.get_submodule(layer)
        for index in range(mlp.num_experts):
            state[f"blocks.0.mlp.experts.{index}.{layer}.weight"] = stack.weight[index].T.clone()
            state[f"blocks.0.mlp.experts.{index}.{layer}.bias"] = stack.bias[index].clone()
    for name in ("weight", "bias"):
        state[f"blocks.0.mlp.switch.{name}"] = mlp.router.get_parameter(name).clone()
    return state


@torch.no_grad()
def test_switch_layers_of_the_wtf_benchmark_are_converted() -> None:
    mlp = model("switch_vit").blocks[0].mlp
    state = wtf_state(mlp)
    converted = wtf_switch(state)
    assert torch.equal(converted.pop("norm.weight"), torch.ones(3))
    other = SwitchMlp(32, 128, capacity_factor=8.0).eval()
    other.load_state_dict({key.removeprefix("blocks.0.mlp."): value for key, value in converted.items()})
    tokens = torch.randn(2, 7, 32)
    choices = F.linear(tokens, state["blocks.0.mlp.switch.weight"], state["blocks.0.mlp.switch.bias"]).argmax(-1)
    for token, choice, found in zip(tokens.flatten(0, 1), choices.flatten(), other(tokens).flatten(0, 1), strict=True):
        first, second = (
            {name: state[f"blocks.0.mlp.experts.{choice}.{layer}.{name}"] for name in ("weight", "bias")}
            for layer in ("fc1", "fc2")
        )
        torch.testing.assert_close(found, F.linear(F.gelu(F.linear(token, **first)), **second))


def test_a_file_of_the_wtf_benchmark_loads(tmp_path: Path) -> None:
    made = model("switch_vit", depth=1)
    layers = wtf_state(made.blocks[0].mlp)
    del layers["norm.weight"]  # made up there; the model's own is kept
    state = {key: value for key, value in made.state_dict().items() if ".mlp." not in key} | layers
    path = tmp_path / "switch.pth"
    torch.save(state, path)
    named = spec("switch_vit_tiny_patch16_224", arguments={**SMALL, "depth": 1})
    loaded = create_backbone(named, 64, weights=str(path))
    mlp = loaded.ffn.block.mlp
    assert mlp.unit_gates
    torch.testing.assert_close(mlp.experts.state_dict(), made.blocks[0].mlp.experts.state_dict())
    torch.testing.assert_close(mlp.router.state_dict(), made.blocks[0].mlp.router.state_dict())
    del state["blocks.0.mlp.experts.3.fc1.weight"]
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"does not fit switch_vit_tiny_patch16_224"):
        create_backbone(named, 64, weights=str(path))


def test_own_weights_pass_the_conversion_unchanged() -> None:
    state = model("switch_vit").state_dict()
    assert wtf_switch(state) == state
