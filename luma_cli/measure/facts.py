"""What a backbone costs and offers, found by one pass on the meta device: a row of the cost table."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version
from itertools import groupby
from typing import TypeVar

import torch
from torch import nn

from luma_cli.backbone.backbone import Backbone, joint_blocks
from luma_cli.backbone.query_ffn import QueryFfn
from luma_cli.catalogue.costs import BackboneFacts, Block, format_blocks
from luma_cli.catalogue.heads import HeadConfig, plan_head
from luma_cli.head.segmenter import block_of, tap_of
from luma_cli.isotropic.mixtures import idle_params
from luma_cli.measure.count import Count, count

RGB = 3
Module = TypeVar("Module", bound=nn.Module)


def backbone_facts(backbone: Backbone, counted: Count | None = None) -> BackboneFacts:
    """The facts of `backbone` at its own resolution. It is not touched: the pass runs on a twin without data.

    counted: the count of its forward on one image where that is known, which saves the pass.
    """
    twin = meta_twin(backbone)
    side = twin.resolution
    counted = counted or count(twin, torch.empty(1, RGB, side, side, device="meta"))
    plan = plan_head(tap_of(twin), HeadConfig())
    query_ffn_macs = _ffn_macs(twin.query_ffn, twin.width) if plan.ffn == "reused" else 0
    return BackboneFacts(
        architecture=twin.spec.architecture,
        resolution=side,
        macs=counted.macs,
        params=num_parameters(twin),
        activations=counted.activations,
        width=twin.width,
        stride=twin.stride,
        num_tokens=twin.num_tokens,
        ffn=plan.ffn,
        query_ffn_macs=query_ffn_macs,
        num_heads=plan.num_heads,
        final_norm=twin.has_final_norm,
        complete=counted.complete,
        unknown_ops=" ".join(counted.unknown_ops),
        timm=version("timm"),
        active_params=num_active_parameters(twin),
        num_prefix_tokens=twin.sites.num_prefix_tokens,
        blocks=format_blocks(_blocks(twin, query_ffn_macs)),
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


def _blocks(backbone: Backbone, last_ffn_macs: int) -> list[Block]:
    """The blocks that queries can read, last first, with what their FFNs cost a query."""
    found = [block_of(backbone, back) for back in range(len(backbone.sites.found))]
    counted: list[int] = [last_ffn_macs]
    known: dict[object, int] = {}  # alike blocks are counted once
    for back, block in enumerate(found[1:], 1):
        ffn = backbone.earlier_ffn(back)
        if block.lends_ffn and isinstance(ffn, QueryFfn):
            likeness = _likeness(ffn)
            if likeness not in known:
                known[likeness] = _ffn_macs(ffn, block.width)
            counted.append(known[likeness])
        else:
            counted.append(0)
    return [replace(block, ffn_macs=macs) for block, macs in zip(found, counted, strict=False)]


def _likeness(ffn: QueryFfn) -> object:
    """Equal for FFNs of the same rule whose layers have the same classes and shapes."""
    modules = [module for part in ffn.parts() if isinstance(part, nn.Module) for module in part.modules()]
    shapes = [tuple(parameter.shape) for module in modules for parameter in module.parameters(recurse=False)]
    return ffn.rule, tuple(type(module) for module in modules), tuple(shapes)


def _ffn_macs(ffn: Callable[[torch.Tensor], torch.Tensor], width: int) -> int:
    """Multiply-adds of one query through `ffn`."""
    return count(ffn, torch.empty(1, 1, width, device="meta")).macs


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
