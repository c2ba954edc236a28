"""A backbone with one tapped block: the feature map it gives, and the FFN and final norm that it lends to queries.

B batch, K queries, N tokens, D channels of the map, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from luma_cli.backbone.layout import from_tokens, to_tokens
from luma_cli.backbone.normalisation import Normalisation
from luma_cli.backbone.query_ffn import QueryFfn, part
from luma_cli.backbone.taps import Sites, ffn_of
from luma_cli.catalogue.rules import ModelRule
from luma_cli.catalogue.spec import BackboneSpec
from luma_cli.errors import BuildError


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
    ffn_kind: taxonomy name of the lent FFN, empty when there is none; ffn_reason: why there is none.
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
        maps = self.model.forward_intermediates(  # type: ignore[operator]
            images, indices=self._indices(), intermediates_only=True, output_fmt=layout
        )
        if layout == "NCHW":
            return maps[-1]  # type: ignore[no-any-return]
        grid = (images.shape[2] // self.rule.multiple, images.shape[3] // self.rule.multiple)
        return from_tokens(maps[-1], "nchw", grid)

    def _indices(self) -> int | list[int]:
        indices = self.rule.indices
        return indices if isinstance(indices, int) else list(indices)

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
