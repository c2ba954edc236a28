"""A backbone as one thing: the feature map of its tapped block, the FFN and final norm that it lends to queries, and,
for EoMT, the last blocks of a plain transformer run on tokens and queries together (arXiv 2503.19108, section 3.2).

Joint blocks run through their own forward, so that scales, gates, gammas and stochastic depth of a block are all its
own; how a model class is entered is said by `joint` in its rule. Queries stand between prefix and patches:
[prefix | queries | patches]. Self-attention does not know an order, and this one lets the rotations of patches be
extended by K that turn nothing, while the block's own count of prefix tokens stays true without queries.
B batch, P prefix tokens (class, registers), K queries, N = h w patch tokens, D channels of the map, H W pixels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from luma_cli.backbone.query_ffn import QueryFfn, part
from luma_cli.backbone.taps import Sites, ffn_of
from luma_cli.backbone.timm_model import Normalisation, from_tokens, to_tokens
from luma_cli.catalogue.rules import ModelRule
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BuildError

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """Where the weights came from.

    sha256: of the file, empty for random ones. ignored: keys of the file that the model lacks. conversions: what was
    changed so that the file fits, one short text each, e.g. `patch 14 -> 16 by resampling`.
    """

    source: str = "random"
    seed: int = 0
    sha256: str = ""
    ignored: tuple[str, ...] = ()
    conversions: tuple[str, ...] = ()


class Backbone(nn.Module):
    """Any module that gives a patch map, seen as a black box with one tapped block.

    width: channels D of the map. stride: pixels per token. query_width: channels that the lent FFN takes, D unless the
    FFN changes width. num_heads: of the head's cross-attention. pruned: names of parameters that never run, removed;
    num_pruned: how many numbers they held. normalisation: what images are to be normalised with before they come here.
    sites: the blocks that queries may read besides the map.
    """

    spec: BackboneSpec
    resolution: int
    width: int
    stride: int
    grid: tuple[int, int]
    query_width: int
    num_heads: int
    pruned: tuple[str, ...]
    num_pruned: int
    weights: LoadedWeights
    normalisation: Normalisation

    def __init__(self, model: nn.Module, spec: BackboneSpec, resolution: int, rule: ModelRule, ffn: QueryFfn | str):
        super().__init__()
        self.model = model
        self.spec = spec
        self.resolution = resolution
        self.rule = rule
        self.pruned = ()
        self.num_pruned = 0
        self.weights = LoadedWeights()
        self.normalisation = Normalisation()
        self._ffn = ffn
        self._sites = Sites(reason="nobody has looked")
        self._earlier_ffns: tuple[QueryFfn | str, ...] = ()

    @property
    def sites(self) -> Sites:
        """The blocks that queries may read besides the map."""
        return self._sites

    @sites.setter
    def sites(self, sites: Sites) -> None:
        self._sites = sites
        self._earlier_ffns = tuple(ffn_of(self.block(back), self.rule) for back in range(1, len(sites.found)))

    def block(self, back: int) -> nn.Module:
        """The block that runs `back` blocks of its kind before the tapped one."""
        return self.model.get_submodule(self._sites.found[-1 - back].name)

    @property
    def ffn_kind(self) -> str:
        """Taxonomy name of the FFN that queries may use; empty when there is none."""
        return self._ffn.rule.kind if isinstance(self._ffn, QueryFfn) else ""

    @property
    def ffn_reason(self) -> str:
        """Why there is no FFN to use; empty when there is one."""
        return "" if isinstance(self._ffn, QueryFfn) else self._ffn

    @property
    def ffn(self) -> QueryFfn:
        """The lent FFN. Raises BuildError when there is none."""
        if isinstance(self._ffn, QueryFfn):
            return self._ffn
        raise BuildError(f"{self.spec.name} lends no FFN: {self._ffn}; use a fresh one (--ffn fresh)")

    @property
    def num_tokens(self) -> int:
        """Tokens of the map at `resolution`."""
        return self.grid[0] * self.grid[1]

    def forward(self, images: Tensor) -> Tensor:
        """Images [B,3,H,W] -> output of the tapped block, before the final norm: [B,D,H/stride,W/stride]."""
        if self.rule.features == "forward":
            return self.model(images)  # type: ignore[no-any-return]
        layout = "NLC" if self.rule.features == "tokens" else "NCHW"
        indices = self.rule.indices if isinstance(self.rule.indices, int) else list(self.rule.indices)
        maps = self.model.forward_intermediates(  # type: ignore[operator]
            images, indices=indices, intermediates_only=True, output_fmt=layout
        )
        if layout == "NCHW":
            return maps[-1]  # type: ignore[no-any-return]
        grid = (images.shape[2] // self.rule.multiple, images.shape[3] // self.rule.multiple)
        return from_tokens(maps[-1], "nchw", grid)

    def query_ffn(self, queries: Tensor) -> Tensor:
        """Queries [B,K,query_width] -> [B,K,D] through the tapped block's own residual FFN; queries never mix.

        Raises BuildError when the block lends none (`ffn_kind` is empty).
        """
        return self.ffn(queries)

    def earlier_ffn(self, back: int) -> QueryFfn | str:
        """The FFN of the block that runs `back` (1 or more) before the tapped one, or why it lends none."""
        return self._earlier_ffns[back - 1]

    def earlier_query_ffn(self, queries: Tensor, back: int) -> Tensor:
        """Queries [B,K,D] -> [B,K,D] through the FFN of the block that runs `back` before the tapped one.

        Raises BuildError when that block lends none.
        """
        ffn = self.earlier_ffn(back)
        if isinstance(ffn, str):
            raise BuildError(f"{self.spec.name}, {back} blocks before the last, lends no FFN: {ffn}; use --ffn fresh")
        return ffn(queries)

    @property
    def final_norm(self) -> nn.Module | None:
        """The backbone's own final norm on its patch map; None when it has none or built it as an identity."""
        if not self.rule.norm:
            return None
        norm = part(self.model, self.rule.norm)
        return norm if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity) else None

    @property
    def has_final_norm(self) -> bool:
        """Whether `norm_tokens` can be used."""
        return self.final_norm is not None

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        """Tokens [B,N,D] -> [B,N,D] through the backbone's own final norm. Raises BuildError when it has none."""
        norm = self.final_norm
        if norm is None:
            raise BuildError(f"{self.spec.name} has no final norm on its patch map; use a fresh one")
        layout = self.rule.norm_layout
        normed: Tensor = norm(from_tokens(tokens, layout, (tokens.shape[1], 1)))
        return to_tokens(normed, layout)


def meta_twin(module: Module) -> Module:
    """A copy of `module` on the meta device, made without copying its parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.is_meta for tensor in tensors):
        return module
    memo: dict[int, object] = {}
    for tensor in tensors:
        empty = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(module, memo)


class TokenSequence(NamedTuple):
    """What enters the joint blocks: tokens [B, P + N, D], a rotation per joint block or none, the patch grid (h, w)."""

    tokens: Tensor
    rotations: tuple[Tensor | None, ...]
    grid: tuple[int, int]


def joint_blocks(backbone: Backbone) -> list[nn.Module]:
    """The blocks that queries can join, in order; none where they cannot join the sequence."""
    return [] if backbone.rule.joint_refusal else list(_timm(backbone).blocks)


def num_prefix_tokens(backbone: Backbone) -> int:
    """Class and register tokens before the patches; 0 where queries cannot join them."""
    return 0 if backbone.rule.joint_refusal else int(_timm(backbone).num_prefix_tokens)


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
    before = sequence.rotations
    if all(rotation is before[0] for rotation in before):  # most models turn alike in every block
        rotations = (_lengthened(before[0], len(queries)),) * len(before)
    else:
        rotations = tuple(_lengthened(rotation, len(queries)) for rotation in before)
    return TokenSequence(joined, rotations, sequence.grid)


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
    model = _timm(backbone)
    patches = model.patch_embed(images)
    if backbone.rule.joint == "tokens":
        return model.norm_pre(model.patch_drop(model._pos_embed(patches))), (None,) * len(model.blocks)
    tokens, rotation = model._pos_embed(patches)
    mixed = model.rope_mixed and rotation is not None
    return model.norm_pre(tokens), tuple(rotation) if mixed else (rotation,) * len(model.blocks)


def _run(backbone: Backbone, index: int, tokens: Tensor, rotation: Tensor | None, mask: Tensor | None) -> Tensor:
    rope = {"rope": rotation} if backbone.rule.joint == "rope" else {}
    after: Tensor = _timm(backbone).blocks[index](tokens, attn_mask=mask, **rope)
    return after


def _lengthened(rotation: Tensor | None, count: int) -> Tensor | None:
    """A rotation [..., N, 2 d] (sines, then cosines) with `count` in front that turn nothing."""
    if rotation is None:
        return None
    *leading, _, width = rotation.shape
    sine, cosine = (make(*leading, count, width // 2) for make in (rotation.new_zeros, rotation.new_ones))
    return torch.cat([torch.cat([sine, cosine], dim=-1), rotation], dim=-2)


def _timm(backbone: Backbone) -> Any:
    return backbone.model
