"""The last blocks of a plain transformer, run on its own tokens and on queries together (EoMT, arXiv 2503.19108, 3.2).

The blocks run through their own forward, so that scales, gates, gammas and stochastic depth of a block are all its own.
How a model class is entered is said by `joint` in its rule. B batch, P prefix tokens (class, registers), K queries,
N = h w patch tokens, D channels, J joint blocks.

Queries stand between prefix and patches: [prefix | queries | patches]. Self-attention does not know an order, and this
one lets the rotations of patches be extended by K that turn nothing, while the block's own count of prefix tokens stays
true for whoever runs the backbone without queries.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from luma_cli.backbone.backbone import Backbone
from luma_cli.errors import BuildError


class TokenSequence(NamedTuple):
    """What enters the joint blocks: tokens [B, P + N, D], a rotation per joint block or none, the patch grid (h, w)."""

    tokens: Tensor
    rotations: tuple[Tensor | None, ...]
    grid: tuple[int, int]


def joint_blocks(backbone: Backbone) -> list[nn.Module]:
    """The blocks that queries can join, in order; none where they cannot join the sequence."""
    return [] if backbone.rule.joint_refusal else list(_model(backbone).blocks)


def num_prefix_tokens(backbone: Backbone) -> int:
    """Class and register tokens before the patches; 0 where queries cannot join them."""
    return 0 if backbone.rule.joint_refusal else int(_model(backbone).num_prefix_tokens)


def tokens_before(backbone: Backbone, images: Tensor, num_joint: int) -> TokenSequence:
    """The tokens of images [B, 3, H, W] after all blocks but the last `num_joint`.

    Raises BuildError where queries cannot join the backbone.
    """
    if backbone.rule.joint_refusal:
        raise BuildError(f"{backbone.spec.name}: EoMT {backbone.rule.joint_refusal}; use --head luma")
    tokens, rotations = _embed(backbone, images)
    first = len(joint_blocks(backbone)) - num_joint
    for index in range(first):
        tokens = _run(backbone, index, tokens, rotations[index], None)
    grid = (images.shape[2] // backbone.stride, images.shape[3] // backbone.stride)
    return TokenSequence(tokens, rotations[first:], grid)


def add_queries(sequence: TokenSequence, queries: Tensor, num_prefix: int) -> TokenSequence:
    """The sequence with queries [K, D], the same for every image, between its prefix and its patches."""
    tokens = sequence.tokens
    asked = queries.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
    joined = torch.cat([tokens[:, :num_prefix], asked, tokens[:, num_prefix:]], dim=1)
    return TokenSequence(joined, _still(sequence.rotations, len(queries)), sequence.grid)


def run_joint_block(
    backbone: Backbone, sequence: TokenSequence, number: int, mask: Tensor | None = None
) -> TokenSequence:
    """The sequence after joint block `number`, counted from 0.

    mask: boolean [B, 1, T, T] over the sequence's T tokens, true where a row's token may attend to a column's.
    """
    index = len(joint_blocks(backbone)) - len(sequence.rotations) + number
    return sequence._replace(tokens=_run(backbone, index, sequence.tokens, sequence.rotations[number], mask))


def _embed(backbone: Backbone, images: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """Tokens before the first block, and a rotation for every block, as the model's own forward makes them."""
    model = _model(backbone)
    patches = model.patch_embed(images)
    if backbone.rule.joint == "tokens":
        return model.norm_pre(model.patch_drop(model._pos_embed(patches))), (None,) * len(model.blocks)
    tokens, rotation = model._pos_embed(patches)
    mixed = model.rope_mixed and rotation is not None
    return model.norm_pre(tokens), tuple(rotation) if mixed else (rotation,) * len(model.blocks)


def _run(backbone: Backbone, index: int, tokens: Tensor, rotation: Tensor | None, mask: Tensor | None) -> Tensor:
    rope = {"rope": rotation} if backbone.rule.joint == "rope" else {}
    after: Tensor = _model(backbone).blocks[index](tokens, attn_mask=mask, **rope)
    return after


def _still(rotations: tuple[Tensor | None, ...], count: int) -> tuple[Tensor | None, ...]:
    """Rotations [..., N, 2 d] (sines, then cosines) with `count` in front that turn nothing; equal ones made once."""
    if all(rotation is rotations[0] for rotation in rotations):
        return (_lengthened(rotations[0], count),) * len(rotations)
    return tuple(_lengthened(rotation, count) for rotation in rotations)


def _lengthened(rotation: Tensor | None, count: int) -> Tensor | None:
    if rotation is None:
        return None
    *leading, _, width = rotation.shape
    sine, cosine = (make(*leading, count, width // 2) for make in (rotation.new_zeros, rotation.new_ones))
    return torch.cat([torch.cat([sine, cosine], dim=-1), rotation], dim=-2)


def _model(backbone: Backbone) -> Any:
    return backbone.model
