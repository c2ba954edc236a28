"""What a backbone costs and offers, found by one pass on the meta device: a row of the cost table."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from importlib.metadata import version
from itertools import groupby
from typing import TypeVar

import torch
from torch import nn

from luma_cli.backbone.backbone import Backbone
from luma_cli.backbone.joint import joint_blocks, num_prefix_tokens
from luma_cli.catalogue.costs import BackboneFacts
from luma_cli.head.config import HeadConfig
from luma_cli.head.plan import plan_head
from luma_cli.head.segmenter import tap_of
from luma_cli.isotropic.experts.stack import idle_params
from luma_cli.measure.count import count

RGB = 3
Module = TypeVar("Module", bound=nn.Module)


def backbone_facts(backbone: Backbone) -> BackboneFacts:
    """The facts of `backbone` at its own resolution. It is not touched: the pass runs on a twin without data."""
    twin = meta_twin(backbone)
    side = twin.resolution
    features: list[torch.Tensor] = []
    counted = count(lambda images: features.append(twin(images)), torch.empty(1, RGB, side, side, device="meta"))
    plan = plan_head(tap_of(twin), HeadConfig())
    return BackboneFacts(
        architecture=twin.spec.architecture,
        resolution=side,
        macs=counted.macs,
        params=num_parameters(twin),
        activations=counted.activations,
        width=twin.width,
        stride=twin.stride,
        num_tokens=features[0].shape[2] * features[0].shape[3],
        ffn=plan.ffn,
        query_ffn_macs=_query_ffn_macs(twin) if plan.ffn == "reused" else 0,
        num_heads=plan.num_heads,
        final_norm=twin.has_final_norm,
        complete=counted.complete,
        unknown_ops=" ".join(counted.unknown_ops),
        timm=version("timm"),
        active_params=num_active_parameters(twin),
        num_prefix_tokens=num_prefix_tokens(twin),
        no_joint=twin.rule.joint_refusal,
        joint_blocks=_runs(_token_and_pair_macs(block, twin.width) for block in reversed(joint_blocks(twin))),
    )


def meta_twin(module: Module) -> Module:
    """A copy of `module` on the meta device, made without copying its parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.is_meta for tensor in tensors):
        return module
    memo: dict[int, object] = {id(tensor): _without_data(tensor) for tensor in tensors}
    return copy.deepcopy(module, memo)


def num_parameters(module: nn.Module) -> int:
    """Parameters of `module`, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def num_active_parameters(module: nn.Module) -> int:
    """Parameters of `module` that one token meets: all of them but those of experts that it is not sent to.

    Experts are known where they are luma's own (`isotropic/experts`); those of one's own module count as met.
    """
    return num_parameters(module) - idle_params(module)


def _query_ffn_macs(backbone: Backbone) -> int:
    return count(backbone.query_ffn, torch.empty(1, 1, backbone.width, device="meta")).macs


def _token_and_pair_macs(block: nn.Module, width: int) -> tuple[int, int]:
    """Multiply-adds of a transformer block per token and per pair of tokens, from counts with one and two tokens.

    They are all that it has, as every layer works on tokens alone but attention, whose products are one per pair.
    """
    one, two = (count(block, torch.empty(1, tokens, width, device="meta")).macs for tokens in (1, 2))
    per_pair = (two - 2 * one) // 2
    return one - per_pair, per_pair


def _runs(blocks: Iterable[tuple[int, int]]) -> str:
    """`per token x per pair * blocks` for every run of equal ones, separated by spaces."""
    return " ".join(f"{costs[0]}x{costs[1]}*{len(list(same))}" for costs, same in groupby(blocks))


def _without_data(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
